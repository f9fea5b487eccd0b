"""What Celery loads (`celery -A worker worker`): the task worker for the environment that `APP_ENV` names."""

import sys

from config import ConfigError, load
from service.jobs.worker import create_worker

try:
    app = create_worker(load())
except (ConfigError, ValueError) as error:
    sys.exit(str(error))
