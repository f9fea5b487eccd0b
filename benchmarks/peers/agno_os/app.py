"""Agno's AgentOS with one agent, set up as its documentation does. `uvicorn app:app --workers 2`."""

from __future__ import annotations

import os

from agno.agent import Agent
from agno.db.postgres import PostgresDb
from agno.db.sqlite import SqliteDb
from agno.models.anthropic import Claude
from agno.os import AgentOS

where = os.environ["BENCH_DATABASE"]
assistant = Agent(
    id="assistant",
    model=Claude(
        id="claude-haiku-5-5",
        max_tokens=1024,
        client_params={"base_url": os.environ["ANTHROPIC_BASE_URL"]},
    ),
    instructions="You are a helpful assistant at work: you answer questions, improve texts, and explain things.",
    db=PostgresDb(db_url=where.replace("://", "+psycopg://")) if "://" in where else SqliteDb(db_file=where),
    telemetry=False,
)
agent_os = AgentOS(agents=[assistant], telemetry=False)
app = agent_os.get_app()
