"""Helpdesk in LangGraph: a model with two tools, and a person who is asked before a refund."""

from typing import Literal, TypedDict

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.runtime import Runtime
from langgraph.types import Command, Send, interrupt

ORDERS = {"1001": {"item": "kettle", "eur": 39, "state": "delivered"}}
PROMPT = (
    "You are a helpdesk. Look an order up before you answer. Refund what was delivered, and nothing else."
)


class Access(TypedDict):
    """Runtime context, which no checkpoint keeps."""

    base_url: str
    api_key: str


@tool
def look_up_order(number: str) -> dict:
    """Return an order's item, price in euros and state."""
    return ORDERS.get(number, {"error": "There is no such order."})


@tool
def refund(number: str, eur: int) -> str:
    """Refund an order. A second refund of the same order changes nothing."""
    return f"Refunded {eur} EUR for order {number}."


TOOLS, ASK_FIRST = [look_up_order, refund], {"refund"}


async def model(state: MessagesState, runtime: Runtime[Access]) -> dict:
    claude = ChatAnthropic(model="claude-haiku-5-5", max_tokens=1024, **runtime.context).bind_tools(TOOLS)
    return {"messages": [await claude.ainvoke([("system", PROMPT), *state["messages"]])]}


def approval(state: MessagesState) -> Command[Literal["tools", "model"]]:
    calls = state["messages"][-1].tool_calls
    asked = [call for call in calls if call["name"] in ASK_FIRST]
    decided = interrupt(asked) if asked else {}  # arguments to call with; None: denied
    denied = [call["id"] for call in asked if decided.get(call["id"]) is None]
    refused = [ToolMessage("A person denied this call.", tool_call_id=id, status="error") for id in denied]
    agreed = [{**call, "args": decided.get(call["id"], call["args"])} for call in calls]
    allowed = [Send("tools", [call]) for call in agreed if call["id"] not in denied]
    return Command(update={"messages": refused}, goto=allowed or "model")


graph = StateGraph(MessagesState, context_schema=Access)
graph.add_node("model", model)
graph.add_node("approval", approval)
graph.add_node("tools", ToolNode(TOOLS))
graph.add_edge(START, "model")
graph.add_conditional_edges("model", tools_condition, {"tools": "approval", "__end__": "__end__"})
graph.add_edge("tools", "model")
