"""What Celery loads (`celery -A worker worker`): the task worker for the environment that `APP_ENV` names."""

import sys

from config import ConfigError, load
from service.observe import folder

try:
    settings = load()
    if settings.metrics_enabled:
        folder.join(folder.of_tasks(settings.slipway_home / f"metrics-{settings.port}"))
    from service.jobs.worker import create_worker  # it imports prometheus_client

    app = create_worker(settings)
except (ConfigError, ValueError) as error:
    sys.exit(str(error))
except OSError as error:
    sys.exit(f"Slipway cannot start: SLIPWAY_HOME cannot be written: {error.filename}: {error.strerror}")
