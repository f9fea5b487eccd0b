"""`kill -9` of the worker at each event of a run of an agent's own code: one whole answer, no call made twice."""

from __future__ import annotations

from collections import Counter

from tests.chaos.houses import House
from tests.chaos.test_worker_killed import Reader

QUESTION = {"input": "Call the append_line tool 1 time."}
AT_ONCE = 12  # events up to the answer's text


def test_worker_killed_at_each_event_of_own_code(house: House) -> None:
    house.model.control(first_token_ms=30, token_ms=8)
    resumed = waited = 0
    for kill_at in range(1, AT_ONCE + 4):
        house.lines.write_text("")
        reader = Reader(house.server, kill_at)
        result = reader.read(QUESTION, "coded")
        reader.client.close()
        names = Counter(name for _, name, _ in reader.events)
        lines = house.lines.read_text().split()
        assert max(Counter(lines).values(), default=1) == 1, kill_at
        if "approval.required" in names:  # killed within the tool: a person is asked
            waited += 1
            continue
        assert result["status"] == "succeeded", (kill_at, result.get("error"))
        assert [seq for seq, _, _ in reader.events] == list(range(1, len(reader.events) + 1)), kill_at
        text = "".join(data["text"] for _, name, data in reader.events if name == "text.delta")
        assert text == result["output"], kill_at
        assert (len(lines), names["tool.called"], names["run.started"]) == (2, 2, 1), kill_at
        resumed += bool(names["run.resumed"])
    assert resumed > AT_ONCE / 3 and resumed + waited > AT_ONCE * 0.7, (
        resumed,
        waited,
    )  # else it proves little
