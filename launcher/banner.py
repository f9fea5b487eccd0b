"""Banner printed once everything is up: address, sign-in, commands to try."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from config import Settings
from config.development import DEMO_PASSWORD
from launcher.programs import reachable

QUESTION = "How do I get a refund?"
MAX_FAULTS = 3  # faults shown
_TOKEN = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"


def text(settings: Settings, port: int, started: list[str], not_ready: str) -> str:
    """Render the banner. `not_ready` is the body of /ready, or empty when ready."""
    host = reachable(settings.host)
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    password = settings.bootstrap_password.get_secret_value()
    known = settings.environment == "development" and password == DEMO_PASSWORD
    lines = ["", f"  Slipway is up: {address}   ({settings.environment})", f"  started: {', '.join(started)}"]
    lines += _agents(settings.agents_summary)
    if not_ready:
        lines.append(f"  not ready yet, see {address}/ready: {not_ready}")
    if settings.offline:
        lines.append(
            "  offline model: answers come from a stand-in that can only quote; ANTHROPIC_API_KEY brings a real one"
        )
    if known:
        lines.append(f"  sign in as {settings.bootstrap_username} / {password}")
    user = settings.bootstrap_username or "you"
    tries = _try(f"{address}/v1", user, password if known else "your-password", _agent(settings))
    return "\n".join([*lines, "", *tries, ""])


def _agents(summary: Path) -> list[str]:
    """Render the count of served agents and the faults of the others; nothing without a readable summary."""
    try:
        content = json.loads(summary.read_text("utf-8"))
        served, left_out = int(content["served"]), list(map(str, content["left_out"]))
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not left_out:
        return [f"  agents: {served} served"]
    faults = left_out[:MAX_FAULTS]
    if len(left_out) > MAX_FAULTS:
        faults.append("`flask agents check` names the others")
    return [f"  agents: {served} served, {len(left_out)} left out ({'; '.join(faults)})"]


def _agent(settings: Settings) -> str:
    """Name the agent to try: `support`, or the first folder where `AGENTS_DIR` has none."""
    folders = sorted(found.parent.name for found in settings.agents_dir.glob("*/agent.yaml"))
    return "support" if "support" in folders or not folders else folders[0]


def _try(api: str, username: str, password: str, agent: str) -> list[str]:
    credentials = shlex.quote(json.dumps({"username": username, "password": password}))
    question = shlex.quote(json.dumps({"input": QUESTION}))
    kind = "-H 'Content-Type: application/json'"
    return [
        "  Try:",
        f"  TOKEN=$(curl -s {api}/auth/login {kind} -d {credentials} | {_TOKEN})",
        f'  curl -s {api}/agents/{agent}/invoke -H "Authorization: Bearer $TOKEN" {kind} -d {question}',
    ]
