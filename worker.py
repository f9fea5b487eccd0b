"""Celery entry point (`celery -A worker worker`): the task worker for the environment that `APP_ENV` names."""

import sys

from config import ConfigError, load
from service.observe import metric_files

try:
    settings = load()
    if settings.metrics_enabled:
        metric_files.join(metric_files.of_tasks(settings.slipway_home / f"metrics-{settings.port}"))
    from service.jobs.celery_worker import create_worker  # imports prometheus_client, after `join`

    app = create_worker(settings)
except (ConfigError, ValueError) as error:
    sys.exit(str(error))
except OSError as error:
    sys.exit(f"Slipway cannot start: SLIPWAY_HOME cannot be written: {error.filename}: {error.strerror}")
