"""Parameters of the Messages API for a request."""

from __future__ import annotations

from typing import Any

from service.llm.client import ModelRequest
from service.llm.tool_names import messages_for_model, tools_for_model

COUNTED = ("model", "messages", "system", "tools", "output_config")  # parameters of `count_tokens`


def params_of(request: ModelRequest) -> dict[str, Any]:
    """Build the arguments of `messages.create`, without sampling parameters: the models refuse them."""
    params: dict[str, Any] = {
        "model": request.model,
        "messages": messages_for_model(request.messages),
        "max_tokens": request.max_tokens,
        "stream": request.stream,
    }
    if request.system:
        params["system"] = request.system if isinstance(request.system, str) else list(request.system)
    if request.tools:
        params["tools"] = tools_for_model(request.tools)
        if not request.may_call_tools:
            params["tool_choice"] = {"type": "none"}  # accepted by every model, with or without thinking
        elif request.must_call_tool:
            params |= {"tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}}
    if request.stop_sequences:
        params["stop_sequences"] = list(request.stop_sequences)
    if request.user_id:
        params["metadata"] = {"user_id": request.user_id}
    output: dict[str, Any] = {}
    if request.effort and not request.must_call_tool:  # it is thinking's, whose highest levels need it
        output["effort"] = request.effort
    if request.json_schema is not None:
        output["format"] = {"type": "json_schema", "schema": request.json_schema}
    if output:
        params["output_config"] = output
    return params
