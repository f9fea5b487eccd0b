"""Tools of the client: offered to the model beside the agent's own, and called by the client once the run has ended.

A run whose model calls one ends with `stop_reason` `tool_use`. The client's next request brings the results, and the
run for it continues the conversation with all that the earlier run has done, also what its client was not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Prompt, assistant_turn, tool_turn
from service.errors import fault
from service.guardrails.prompt_marker import without_prompt
from service.llm.client import ModelReply
from service.llm.forced_choice import taking_forced
from service.llm.thinking import THINKING
from service.llm.tool_names import named_for_model
from service.runs.journal_codec import decode_reply, decode_result
from service.store import runs, steps
from service.store.database import Database, Row, Transaction
from service.store.visibility import visible_to
from service.types import Answer, Block, Caller, Message, RunRequest

Tool = Mapping[str, Any]  # as the Messages API takes it
PATTERNS = ("single", "react")  # whose conversation is that of their steps
MAX_CONTINUED = 64  # earlier runs of one conversation whose steps are read: the newest
MAX_RESTORED = 4 * 1024 * 1024  # bytes of these steps: more than any model reads
_ID = re.compile(r"(?:call|toolu)_([0-9a-z]{26})_(.+)", re.DOTALL)


class CallsClient(Exception):
    """Raised when the model calls tools of the client: the run ends with these calls."""

    def __init__(self, reply: ModelReply, calls: Sequence[Block]) -> None:
        super().__init__()
        self.reply = reply
        self.calls = calls

    def answer(self, marker: str = "") -> Answer:
        """Return the calls as an answer, without the system prompt that has the marker."""
        calls = tuple(
            {"id": use["id"], "name": use["name"], "arguments": without_prompt(use["input"], marker)}
            for use in self.calls
        )
        return Answer(self.reply.text, "tool_use", self.reply.model, client_calls=calls)


class Offer(NamedTuple):
    """Tools of a model call, as `ModelRequest` has them."""

    tools: list[Tool]
    may_call_tools: bool
    must_call_tool: bool = False


def check(agent: AgentDefinition, request: RunRequest) -> None:
    """Check that an agent may be offered the client's tools. Raises `Invalid`."""
    if agent.pattern not in PATTERNS:
        raise fault(
            "/tools", f"The agent {agent.id} takes no tools of clients: its pattern is {agent.pattern}"
        )
    own = {named_for_model(name) for name in agent.tools}
    for number, tool in enumerate(request.client_tools or ()):
        if tool["name"] in own:
            raise fault(f"/tools/{number}", f"The agent has a tool of the name {tool['name']} itself")
    if request.client_choice == "any" and not taking_forced(
        agent.model_router.route("auto", bounds=agent.bounds).models
    ):
        raise fault("/tool_choice", f"No model of the agent {agent.id} can be made to call a tool")


def models_for(request: RunRequest, models: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of a tier's models that take what the client asks of its tools."""
    if request.client_choice != "any":
        return models
    return taking_forced(models) or models  # none after a change of settings: the provider refuses


def offered(request: RunRequest, prompt: Prompt, own: Sequence[Tool]) -> Offer:
    """Return the tools that a prompt offers, of the agent's own and the client's. A forced call is of the client's.

    A hidden step, and the repair of an answer, are not the client's concern.
    """
    tools, may_call = list(own) if prompt.tools else [], prompt.may_call_tools
    if not request.client_tools or not prompt.publish or not (tools or may_call):
        return Offer(tools, may_call)
    if request.client_choice == "any":  # also in the last step that may be taken: the call ends the run
        return Offer(list(request.client_tools), may_call_tools=True, must_call_tool=True)
    may_call = may_call and (bool(tools) or request.client_choice is None)
    return Offer([*tools, *request.client_tools], may_call)


def calls_of(reply: ModelReply, request: RunRequest) -> list[Block]:
    """Return the calls of a reply that are for the client; one with unreadable arguments is none."""
    if not request.client_tools or request.client_choice == "none":
        return []
    names = {tool["name"] for tool in request.client_tools}
    return [use for use in reply.tool_uses if use["name"] in names and use["id"] not in reply.unreadable]


def earlier_calls(request: RunRequest) -> set[str]:
    """Return the ids of calls in a request's conversation, none of which a new call may have."""
    return {block["id"] for message in request.messages for block in _calls_in(message)}


def without(reply: ModelReply, calls: Sequence[Block]) -> ModelReply:
    """Return a reply without these calls."""
    ids = {use["id"] for use in calls}
    content = [block for block in reply.content if block.get("type") != "tool_use" or block["id"] not in ids]
    return replace(reply, content=content)


def wire_id(prefix: str, run_id: str, call_id: str) -> str:
    """Return the id of a call as its client sees it: by it the run is found again."""
    return f"{prefix}_{run_id.removeprefix('run_')}_{call_id}"


@dataclass(frozen=True, slots=True)
class Continuations:
    """Conversations that go on after calls of the client's tools. One per process."""

    db: Database

    def restored(self, caller: Caller, agent: str, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Put the steps of earlier runs in place of what their client was shown of them.

        A turn whose run is not the caller's, of another agent, did not end with calls of the client, or is no longer
        stored, stays as it was sent.
        """
        called = dict.fromkeys(run for message in messages if (run := _run_of(message)) is not None)
        wanted = list(called)[-MAX_CONTINUED:]
        if not wanted:
            return tuple(messages)
        visible = visible_to(caller, own=True)

        def read(tx: Transaction) -> dict[str, list[Message]]:
            known: dict[str, list[Message]] = {}
            left = MAX_RESTORED
            for run_id in reversed(wanted):
                run = runs.get(tx, run_id, visible)
                if run is None or run.agent != agent or not (run.result or {}).get("client_calls"):
                    continue
                turns = list(_conversation(run.request, steps.of_run(tx, run.id)))
                left -= len(orjson.dumps(turns))
                if left < 0:
                    break
                known[run.id] = turns
            return known

        return tuple(_merged(messages, self.db.query(read)))


def _conversation(request: RunRequest, rows: Sequence[Row]) -> Iterator[Message]:
    """Yield the turns of a run's model and of the agent's own tools, from the steps of the run."""
    own: list[Block] = []
    for row in rows:
        if row["kind"] == "model":
            reply = decode_reply(row["reply"])
            if reply.tool_uses:  # else a step of the service's own, such as notes
                own = without(reply, calls_of(reply, request)).tool_uses
                turn = assistant_turn(reply)
                yield {**turn, "content": [one for one in turn["content"] if one.get("type") not in THINKING]}
        elif row["kind"] == "tools":
            yield tool_turn(own, [decode_result(item) for item in row["reply"]["results"]])


def _merged(messages: Sequence[Message], known: dict[str, list[Message]]) -> Iterator[Message]:
    """Yield messages with the turns of known runs, and the client's results beside those of the agent's own tools."""
    run, own = None, None
    for message in messages:
        called = _run_of(message)
        # A run has ended once: what stands in two turns would multiply its steps.
        if called is not None and _fits(message, turns := known.pop(called, [])):
            run = called
            own = turns[-1] if turns[-1]["role"] == "user" else None
            yield from turns if own is None else turns[:-1]
        elif run is not None:  # the turn after the calls holds their results
            content = [_unwired(block) for block in message["content"]]
            yield {**message, "content": [*(own["content"] if own is not None else ()), *content]}
            run = None
        else:
            yield message


def _run_of(message: Message) -> str | None:
    """Return the run whose calls a turn holds; None where it holds none, or those of several runs."""
    found = {_split(block["id"])[0] for block in _calls_in(message)}
    return found.pop() if len(found) == 1 else None


def _fits(message: Message, turns: Sequence[Message]) -> bool:
    """Return whether the calls that a client sends back are those that its run has ended with."""
    last = next((turn for turn in reversed(turns) if turn["role"] == "assistant"), None)
    if last is None:
        return False
    answered = {block["tool_use_id"] for block in turns[-1]["content"] if block.get("type") == "tool_result"}
    open_calls = {block["id"] for block in _calls_in(last)} - answered
    return {_split(block["id"])[1] for block in _calls_in(message)} == open_calls


def _calls_in(message: Message) -> list[Block]:
    if message["role"] != "assistant" or isinstance(message["content"], str):
        return []
    return [block for block in message["content"] if block.get("type") == "tool_use"]


def _split(call_id: str) -> tuple[str | None, str]:
    """Parse the id of a call, as its client knows it, into its run and its id there."""
    match = _ID.fullmatch(call_id)
    return (f"run_{match[1]}", match[2]) if match else (None, call_id)


def _unwired(block: Block) -> Block:
    if block.get("type") != "tool_result":
        return block
    return {**block, "tool_use_id": _split(block["tool_use_id"])[1]}
