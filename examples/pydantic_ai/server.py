"""Desk for orders in Pydantic AI, served by the POST protocol for remote agents: docs/remote-agents.md."""

import hmac
import json
import os

from pydantic_ai import (
    Agent,
    DeferredToolRequests,
    DeferredToolResults,
    ModelMessagesTypeAdapter,
    ToolApproved,
)
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

ORDERS = {"1001": {"item": "kettle", "eur": 39, "state": "delivered"}}
desk = Agent(
    instructions="You are a helpdesk. Look an order up before you answer. Refund what was delivered, and nothing else.",
    output_type=[str, DeferredToolRequests],
)


@desk.tool_plain
def look_up_order(number: str) -> dict:
    """Return an order's item, price in euros and state."""
    return ORDERS.get(number, {"error": "There is no such order."})


@desk.tool_plain(requires_approval=True)
def refund(number: str, eur: int) -> str:
    """Refund an order. A second refund of the same order changes nothing."""
    return f"Refunded {eur} EUR for order {number}."


async def ask(request):
    if not hmac.compare_digest(
        request.headers.get("authorization", ""), f"Bearer {os.environ['SERVICE_TOKEN']}"
    ):
        return JSONResponse({"title": "Not signed in"}, 401)
    asked = await request.json()
    provider = AnthropicProvider(base_url=asked["base_url"], api_key=asked["run_token"])
    model, resume = AnthropicModel("claude-haiku-5-5", provider=provider), asked.get("resume")
    try:
        if resume:
            decided = {
                one["call_id"]: one["decision"] == "approve" and ToolApproved(override_args=one["arguments"])
                for one in resume["decisions"]
            }
            history = ModelMessagesTypeAdapter.validate_python(resume["state"])
            result = await desk.run(
                model=model,
                message_history=history,
                deferred_tool_results=DeferredToolResults(approvals=decided),
            )
        else:
            turns = [f"{turn['role']}: {turn['content']}" for turn in asked["messages"]]
            result = await desk.run("\n\n".join(turns), model=model)
    except ModelHTTPError as error:  # such as a cap that is reached: 402
        code = (error.body or {}).get("error", {}).get("code", "model_error")
        return JSONResponse({"status": "failed", "error": {"code": code, "status": error.status_code}})
    if isinstance(result.output, str):
        return JSONResponse({"status": "succeeded", "output": result.output})
    calls = [
        {"call_id": call.tool_call_id, "name": call.tool_name, "arguments": call.args_as_dict()}
        for call in result.output.approvals
    ]
    state = json.loads(result.all_messages_json())
    return JSONResponse({"status": "waiting_approval", "approvals": calls, "state": state})


app = Starlette(
    routes=[
        Route("/", ask, methods=["POST"]),
        Route("/health", lambda request: JSONResponse({"status": "ok"})),
    ]
)
