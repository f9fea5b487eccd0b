"""`kill -9` of the worker of a run that keeps notes: a note that was told is there, and none is written twice."""

from __future__ import annotations

import os
import random
from typing import Any

import httpx2

from service.ids import new_id
from tests.chaos.houses import House
from tests.chaos.test_worker_killed import Reader

KILLS = int(os.environ.get("CHAOS_NOTES", "4"))
NOTES = 8  # that a run writes, with two events for each


def test_notes_are_written_once_and_those_that_were_told_are_there(house: House) -> None:
    random.seed(int(os.environ.get("SEED", "24")))
    client = house.server.client()
    for number in range(KILLS):
        word = new_id("w")[-12:]
        reader = Reader(house.server, kill_at=random.randint(1, 2 * NOTES))
        result = reader.read({"input": f"Note what you know of {word}"}, "noter")
        reader.client.close()
        asked = reader.events[-1][1] == "approval.required"  # killed within the call: a person has to say
        assert asked or result["status"] == "succeeded", (number, result.get("error"))
        told = [data for _, name, data in reader.events if name == "tool.finished"]
        assert all(data["ok"] for data in told), told
        found = notes(client, word)
        assert len(told) <= len(found) <= len(told) + asked, (number, told, found)
        for key, note in found.items():
            assert note["text"] == key.replace("-", " is ")
            assert note["created_at"] == note["updated_at"], "it was written once"
            client.delete(f"/v1/memory/{key}").raise_for_status()
        assert asked or len(found) == NOTES
        if asked:
            client.post(f"/v1/runs/{reader.run_id}/cancel").raise_for_status()
    client.close()


def notes(client: httpx2.Client, word: str) -> dict[str, dict[str, Any]]:
    keys = [row["key"] for row in client.get("/v1/memory").json()["data"]]
    return {key: client.get(f"/v1/memory/{key}").json() for key in keys if key.startswith(word)}
