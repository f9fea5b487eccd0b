"""A remote agent written with OpenAI's SDK: its calls of GPT models are held, paid and kept as steps of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import sqlalchemy as sa

from service.store.schema import steps
from tests.conftest import RedisServer
from tests.gateway.upstream import COST, MODEL, chat
from tests.llm.wire_server import Exchange, WireServer, whole
from tests.remote import house


def test_agent_of_openais_sdk_stands_in_the_runs_ledger(tmp_path: Path, redis_server: RedisServer) -> None:
    upstream = WireServer(chat)

    def agent(exchange: Exchange) -> None:
        asked = exchange.json
        question: Any = [{"role": "user", "content": asked["messages"][-1]["content"]}]
        with openai.OpenAI(api_key=asked["run_token"], base_url=f"{far.door.url}/v1") as client:
            first = client.chat.completions.create(model=MODEL, messages=question, max_completion_tokens=50)
            with client.chat.completions.create(
                model=MODEL, messages=question, max_completion_tokens=50, stream=True
            ) as stream:
                text = "".join(one.choices[0].delta.content or "" for one in stream)
        assert first.choices[0].message.content == text
        whole({**house.SUCCEEDED, "output": text})(exchange)

    with house.far(tmp_path, redis_server.url, agent, openai_base_url=f"{upstream.url}/v1") as far:
        run = far.ask()
        assert (run.status, (run.result or {})["output"]) == ("succeeded", "Good day."), run.error
        assert run.cost_nano == 2 * COST and far.door.spent == 2 * COST and far.door.held == 0
        query = sa.select(steps).where(steps.c.run_id == run.id, steps.c.kind == "model")
        kept = far.door.services.infra.db.query(lambda tx: tx.rows(query))
        assert [row["reply"]["model"] for row in kept] == [MODEL, MODEL]
        assert run.usage.input_tokens == 40 and run.usage.cache_read_input_tokens == 20
    upstream.stop()
