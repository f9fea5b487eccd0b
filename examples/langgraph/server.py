"""HTTP server of the graph, by the POST protocol for remote agents: docs/remote-agents.md."""

import hmac
import json
import os
from contextlib import asynccontextmanager

from anthropic import APIStatusError
from graph import graph
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app):
    async with AsyncSqliteSaver.from_conn_string(os.environ.get("CHECKPOINTS", "checkpoints.db")) as saver:
        app.state.graph = graph.compile(saver)
        yield


async def events(helpdesk, asked):
    """Start the run's thread, or go on from its last checkpoint; yield events, and last the answer."""
    thread = {"configurable": {"thread_id": asked["run_id"]}}
    access = {"base_url": asked["base_url"], "api_key": asked["run_token"]}
    state, resume = await helpdesk.aget_state(thread), asked.get("resume")
    given = None if state.values else {"messages": asked["messages"]}
    if (
        resume and state.interrupts and state.interrupts[0].id == resume["state"]
    ):  # an answered question has gone
        decided = {one["call_id"]: one for one in resume["decisions"]}
        given = Command(
            resume={
                id: one["arguments"] if one["decision"] == "approve" else None for id, one in decided.items()
            }
        )
    told = helpdesk.astream(
        given, thread, context=access, stream_mode=["messages", "updates"], durability="sync"
    )
    try:
        async for mode, part in told:
            if mode == "messages" and part[1]["langgraph_node"] == "model" and part[0].text:
                yield "text.delta", {"text": part[0].text}
            elif mode == "updates":
                for message in (
                    one for update in part.values() if isinstance(update, dict) for one in update["messages"]
                ):
                    for call in message.tool_calls if isinstance(message, AIMessage) else ():
                        yield (
                            "tool.called",
                            {"call_id": call["id"], "name": call["name"], "arguments": call["args"]},
                        )
                    if isinstance(message, ToolMessage):
                        ok = message.status == "success"
                        yield (
                            "tool.finished",
                            {"call_id": message.tool_call_id, "ok": ok, "preview": message.text},
                        )
    except APIStatusError as error:  # such as a cap that is reached: 402
        code = (error.body or {}).get("error", {}).get("code", "model_error")
        yield "run.failed", {"status": "failed", "error": {"code": code, "status": error.status_code}}
        return
    state = await helpdesk.aget_state(thread)
    if state.interrupts:
        calls = [
            {"call_id": c["id"], "name": c["name"], "arguments": c["args"]} for c in state.interrupts[0].value
        ]
        waiting = {"status": "waiting_approval", "approvals": calls, "state": state.interrupts[0].id}
        yield "run.waiting", waiting
    else:
        yield "run.completed", {"status": "succeeded", "output": state.values["messages"][-1].text}


async def ask(request):
    if not hmac.compare_digest(
        request.headers.get("authorization", ""), f"Bearer {os.environ['SERVICE_TOKEN']}"
    ):
        return JSONResponse({"title": "Not signed in"}, 401)
    asked = await request.json()
    told = events(request.app.state.graph, asked)
    return EventSourceResponse(
        ({"event": name, "data": json.dumps(data)} async for name, data in told), ping=10
    )


app = Starlette(
    routes=[
        Route("/", ask, methods=["POST"]),
        Route("/health", lambda request: JSONResponse({"status": "ok"})),
    ],
    lifespan=lifespan,
)
