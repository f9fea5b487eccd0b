"""`python -m launcher`: start everything, print the banner, supervise until a signal stops it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping

from config import ConfigError, Settings, load
from launcher import banner, preload, programs, state
from launcher.code_watcher import CodeWatcher
from launcher.process import die_with_parent
from launcher.supervisor import Stopped, Supervisor, log

START_SECONDS = 60.0  # for an old machine with a cold disk; usually two
READY_SECONDS = 10.0


def main() -> int:
    """Run the launcher; return the exit code: 0 after a signal, 1 if it cannot start, 2 for a wrong setting."""
    parser = argparse.ArgumentParser(prog="python -m launcher", description=__doc__)
    parser.add_argument(
        "--parent-pid", type=int, help="stop when this process, the one that started us, ends"
    )
    parent_pid = parser.parse_args().parent_pid
    if parent_pid is not None:
        die_with_parent(parent_pid, signal.SIGTERM)
    try:
        settings = load()
        lock = state.lock_folder(state.private_folder(settings.slipway_home))
        port = state.claim_port(settings.host, settings.port)
        return run(settings, port, lock)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except state.CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the supervisor has installed its signal handlers
        return 1


def run(settings: Settings, port: int, lock: int) -> int:
    """Start, supervise and stop all programs. Raises CannotStart after stopping those that had started."""
    model_port, mcp_ports = _offline_model_port(settings), programs.mcp_ports(settings)
    supervisor = Supervisor(_environment(settings, port, model_port, mcp_ports), lock)
    try:
        started = _start(supervisor, settings, port, model_port, mcp_ports)
        print(banner.text(settings, port, started, _readiness_fault(supervisor, settings, port)), flush=True)
        _supervise(supervisor, settings)
    except Stopped:
        log("stopping")
    finally:
        supervisor.stop()
    return 0


def _supervise(supervisor: Supervisor, settings: Settings) -> None:
    """Supervise until a signal raises `Stopped`; with `reload`, restart web and worker when the code changes."""
    code = CodeWatcher()
    while True:
        supervisor.run_until(code.changed if settings.reload else lambda: False)
        log("the code has changed: starting web and worker again")
        supervisor.restart("web", "worker")


def _start(
    supervisor: Supervisor,
    settings: Settings,
    port: int,
    model_port: int | None,
    mcp_ports: Mapping[str, int],
) -> list[str]:
    """Start Redis and the migrations, import what the programs share, then start those; return their descriptions."""
    started = []
    if not programs.migrated(settings):
        supervisor.add(programs.migrations())
    if settings.embedded_redis:
        supervisor.add(programs.redis(settings))
        started.append("Redis (embedded)")
    forked = preload.load()
    if model_port is not None:
        supervisor.add(programs.offline_model(model_port, forked=forked))
        started.append(f"offline model (port {model_port})")
    if mcp_ports:
        supervisor.add(programs.mcp_servers(mcp_ports, forked=forked))
        started += [f"{name} (port {mcp_port})" for name, mcp_port in mcp_ports.items()]
    if not supervisor.run_until(supervisor.ready, START_SECONDS):
        raise state.CannotStart(f"The programs before the web server took longer than {START_SECONDS:g} s.")
    supervisor.add(programs.worker(settings, forked=forked), programs.web(settings, port, forked=forked))
    started.append("worker")
    if not supervisor.run_until(lambda: supervisor.ready("web"), START_SECONDS):
        raise state.CannotStart(f"The web server did not answer within {START_SECONDS:g} s.")
    return [*started, f"web ({settings.web_concurrency} processes of {settings.threads} threads)"]


def _readiness_fault(supervisor: Supervisor, settings: Settings, port: int) -> str:
    """Wait until /ready answers 200; return an empty string, or its body after `READY_SECONDS`."""

    def ready() -> bool:
        return programs.get(settings.host, port, "/ready")[0] == 200

    if supervisor.run_until(ready, READY_SECONDS):
        return ""
    return programs.get(settings.host, port, "/ready")[1].strip() or "no answer"


def _offline_model_port(settings: Settings) -> int | None:
    """Return a port for the offline model; None if another model is configured."""
    if (
        not settings.offline
        or settings.anthropic_base_url != f"http://127.0.0.1:{settings.offline_model_port}"
    ):
        return None
    return state.free_port("127.0.0.1", settings.offline_model_port)


def _environment(
    settings: Settings, port: int, model_port: int | None, mcp_ports: Mapping[str, int]
) -> dict[str, str]:
    """Build the children's environment. Gunicorn itself reads WEB_CONCURRENCY, and only from there."""
    decided = {"PORT": str(port), "WEB_CONCURRENCY": str(settings.web_concurrency)}
    if model_port is not None:
        decided["ANTHROPIC_BASE_URL"] = f"http://127.0.0.1:{model_port}"
    for name, mcp_port in mcp_ports.items():
        decided[f"{name.upper()}_URL"] = f"http://127.0.0.1:{mcp_port}/mcp"
    replaced = {f"{name}_FILE" for name in decided}
    given = {name: value for name, value in os.environ.items() if name not in replaced}
    return given | decided


if __name__ == "__main__":
    sys.exit(main())
