"""WSGI entry point for Gunicorn and the `flask` command: the app for the environment that `APP_ENV` names."""

import sys

from config import ConfigError, load
from service.app import create_app

try:
    settings = load()
except ConfigError as error:
    sys.exit(str(error))
app = create_app(settings)
