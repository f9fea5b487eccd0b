"""CPU that traces cost an invoke: `python -m benchmarks.tracing_cost`.

Three processes with the application of `benchmarks.profile`: without traces, with 1 % of the requests traced, and with
all. They make the same requests in turn, so that each round is compared with its neighbour; CPU is that of the whole
process, with the thread that sends the spans. The collector is a sink.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.profile import application, caller
from benchmarks.summary import ratio
from tests.conftest import model_server, redis_in

SHARES = {"off": "", "1 %": "0.01", "100 %": "1"}
WARM = 30


class Sink(BaseHTTPRequestHandler):
    """Collector that forgets."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


def serve(folder: Path, redis_url: str, model_url: str, collector: str, share: str) -> None:
    """Make as many requests as each line of standard input says; answer with ms of CPU per request, and MiB."""
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_TRACES_SAMPLER_ARG": share} if share else {}
    call = caller(application(folder, redis_url, model_url, **more), "invoke")
    number = 0
    for line in sys.stdin:
        began = time.process_time()
        for _ in range(int(line)):
            call(number)
            number += 1
        time.sleep(3)  # until the spans are sent
        cpu = (time.process_time() - began) * 1000 / int(line)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{cpu:.4f} {memory:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=300, help="of one round")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        folder, *rest = asked.serve
        serve(Path(folder), *rest)
        return
    with ExitStack() as stack:
        found, memory = measured(stack, asked.rounds, asked.requests)
    for name, cpu in found.items():
        told = "" if name == "off" else f"  / off: {ratio(cpu, found['off'])}"
        print(f"{name:6} {statistics.median(cpu):.3f} ms of CPU  {memory[name]:.0f} MiB{told}")


def measured(stack: ExitStack, rounds: int, requests: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the CPU of each round, and the memory, by name."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slp", ignore_cleanup_errors=True)))
    redis = stack.enter_context(redis_in(folder / "redis"))
    model = stack.enter_context(model_server())
    sink = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Sink))
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    stack.callback(sink.shutdown)
    children: dict[str, subprocess.Popen[str]] = {}
    for name, share in SHARES.items():
        place = folder / name.replace(" ", "")
        place.mkdir()
        url = f"http://127.0.0.1:{sink.server_port}"
        command = [sys.executable, "-m", "benchmarks.tracing_cost"]
        command += ["--serve", str(place), redis.url, model.url, url, share]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(child.wait)
        stack.callback(child.kill)
        children[name] = child
        made(child, WARM)
    found: dict[str, list[float]] = {name: [] for name in SHARES}
    memory: dict[str, float] = {}
    for number in range(rounds):
        for name in SHARES if number % 2 else reversed(SHARES):
            cpu, memory[name] = made(children[name], requests)
            found[name].append(cpu)
    return found, memory


def made(child: subprocess.Popen[str], requests: int) -> tuple[float, float]:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(f"{requests}\n")
    child.stdin.flush()
    cpu, memory = child.stdout.readline().split()
    return float(cpu), float(memory)


if __name__ == "__main__":
    main()
