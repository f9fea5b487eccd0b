"""`python -m launcher`: start everything, say so, look after it until told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from config import ConfigError, Settings, load
from launcher import banner, programs, state
from launcher.code import Code
from launcher.process import die_with
from launcher.supervisor import Stopped, Supervisor, say

START_SECONDS = 60.0  # an old machine with a cold disk; a usual start takes two
READY_SECONDS = 10.0


def main() -> int:
    """The exit code: 0 after a signal, 1 when something kept it from starting, 2 for a wrong setting."""
    parser = argparse.ArgumentParser(prog="python -m launcher", description=__doc__)
    parser.add_argument(
        "--parent-pid", type=int, help="stop when this process, the one that started us, ends"
    )
    parent_pid = parser.parse_args().parent_pid
    if parent_pid is not None:
        die_with(parent_pid, signal.SIGTERM)
    try:
        settings = load()
        lock = state.hold(state.private_folder(settings.slipway_home))
        port = state.claim_port(settings.host, settings.port)
        return run(settings, port, lock)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except state.CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the supervisor took the signals over
        return 1


def run(settings: Settings, port: int, lock: int) -> int:
    """Everything from the first child to the last. Raises CannotStart once all that had started is ended again."""
    model_port = _offline_model_port(settings)
    supervisor = Supervisor(_environment(settings, port, model_port), lock)
    try:
        started = _start(supervisor, settings, port, model_port)
        print(banner.text(settings, port, started, _why_not_ready(supervisor, settings, port)), flush=True)
        _look_after(supervisor, settings)
    except Stopped:
        say("stopping")
    finally:
        supervisor.stop()
    return 0


def _look_after(supervisor: Supervisor, settings: Settings) -> None:
    """Until told to stop; where settings say so, what runs the code is started again when the code changes."""
    code = Code()
    while True:
        supervisor.until(code.changed if settings.reload else lambda: False)
        say("the code has changed: starting web and worker again")
        supervisor.restart("web", "worker")


def _start(supervisor: Supervisor, settings: Settings, port: int, model_port: int | None) -> list[str]:
    """Redis, the model and the migrations side by side, then what needs them. Returns what was started, in words."""
    started = []
    if not programs.migrated(settings):
        supervisor.add(programs.migrations())
    if model_port is not None:
        supervisor.add(programs.offline_model(model_port))
        started.append(f"offline model (port {model_port})")
    if settings.embedded_redis:
        supervisor.add(programs.redis(settings))
        started.append("Redis (embedded)")
    if not supervisor.until(supervisor.ready, START_SECONDS):
        raise state.CannotStart(f"Redis, the model or the migrations took longer than {START_SECONDS:g} s.")
    supervisor.add(programs.worker(settings), programs.web(settings, port))
    started.append("worker")
    if not supervisor.until(lambda: supervisor.ready("web"), START_SECONDS):
        raise state.CannotStart(f"The web server did not answer within {START_SECONDS:g} s.")
    return [*started, f"web ({settings.web_concurrency} processes of {settings.threads} threads)"]


def _why_not_ready(supervisor: Supervisor, settings: Settings, port: int) -> str:
    """Empty as soon as /ready says yes; after a while, what it says instead."""

    def ready() -> bool:
        return programs.get(settings.host, port, "/ready")[0] == 200

    if supervisor.until(ready, READY_SECONDS):
        return ""
    return programs.get(settings.host, port, "/ready")[1].strip() or "no answer"


def _offline_model_port(settings: Settings) -> int | None:
    """Where to start the offline model; None when there is a model already."""
    if (
        not settings.offline
        or settings.anthropic_base_url != f"http://127.0.0.1:{settings.offline_model_port}"
    ):
        return None
    return state.free_port("127.0.0.1", settings.offline_model_port)


def _environment(settings: Settings, port: int, model_port: int | None) -> dict[str, str]:
    """Ours, and what was decided here. Gunicorn reads WEB_CONCURRENCY by itself, and not from `.env` or a file."""
    decided = {"PORT": str(port), "WEB_CONCURRENCY": str(settings.web_concurrency)}
    if model_port is not None:
        decided["ANTHROPIC_BASE_URL"] = f"http://127.0.0.1:{model_port}"
    replaced = {f"{name}_FILE" for name in decided}
    given = {name: value for name, value in os.environ.items() if name not in replaced}
    return given | decided


if __name__ == "__main__":
    sys.exit(main())
