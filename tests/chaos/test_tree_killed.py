"""`kill -9` of the workers of a run with sub-agents: one whole answer, each event once, and no tool call repeated."""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from typing import Any

from tests.chaos.houses import House
from tests.chaos.test_worker_killed import ENDS, Reader
from tests.conftest import PYTHON, ROOT

KILLS = int(os.environ.get("CHAOS_KILLS", "12"))
EVENTS = 75  # in such a run, about
QUESTION = {
    "input": "Call the append_line tool 2 times. Call the append_line tool 3 times. Call the append_line tool 4 times.",
    "cache": "bypass",
}


def denied(reader: Reader) -> None:
    """Deny the calls within which the worker was killed: nobody can say whether they were made."""
    run = reader.client.get(f"/v1/runs/{reader.run_id}").json()
    for approval in run.get("approvals", ()):
        answer = reader.client.post(f"/v1/approvals/{approval}", json={"decision": "deny"})
        assert answer.status_code == 200, answer.text


def test_killed_tree_gives_one_whole_answer_and_repeats_nothing(house: House) -> None:
    house.model.control(first_token_ms=30, token_ms=8)
    random.seed(int(os.environ.get("SEED", "22")))
    resumed = waited = 0
    for number in range(KILLS):
        house.lines.write_text("")
        reader = Reader(house.server, kill_at=random.randint(1, EVENTS - 1))
        result = reader.read(QUESTION, "desk")
        while reader.events[-1][1] == "approval.required":
            waited += 1
            denied(reader)
            result = reader.read_on()
        reader.client.close()
        assert result["status"] == "succeeded", (number, result.get("error"))
        names = Counter(name for _, name, _ in reader.events)
        assert max(Counter(house.lines.read_text().split()).values(), default=1) == 1, number
        seqs = [seq for seq, _, _ in reader.events]
        assert seqs == list(range(1, len(seqs) + 1)), number
        assert names["run.started"] == sum(names[name] for name in ENDS if name.startswith("run.")) == 1
        assert repeated(reader.events) == [], number
        text = "".join(data["text"] for _, name, data in reader.events if name == "text.delta")
        assert text == result["output"], number
        resumed += bool(names["run.resumed"])
    assert resumed > KILLS / 2, resumed  # else it proves little
    assert_books_balance(house)


def repeated(events: list[tuple[int, str, dict[str, Any]]]) -> list[object]:
    marks = Counter(
        (name, data.get("branch"), data.get("call_id") or data.get("step"))
        for _, name, data in events
        if name in ("tool.called", "tool.finished", "step.started", "usage")
    )
    return [mark for mark, times in marks.items() if times > 1]


def assert_books_balance(house: House) -> None:
    command = [PYTHON, "-m", "flask", "--app", "wsgi", "ledger", "check"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **house.server.env}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and " 0.000000 held" in done.stdout, done.stdout + done.stderr
