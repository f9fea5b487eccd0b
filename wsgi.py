"""What Gunicorn and the `flask` command load: the application for the environment that `APP_ENV` names."""

from config import load
from service.app import create_app

app = create_app(load())
