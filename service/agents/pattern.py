"""Interface of agent patterns and everything they may use. Patterns are independent of HTTP, billing and storage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from service.agents.definitions import AgentDefinition, Finding
from service.agents.spec import AgentSpec, PatternOptions
from service.errors import ModelError, ModelRefused
from service.guardrails.fence import fenced
from service.types import Answer, Block, Message, RunEvent, RunRequest, Tier

if TYPE_CHECKING:
    from service.agents.remote_spec import RemoteSpec
    from service.knowledge import Knowledge
    from service.llm.client import ModelReply
    from service.tools import ToolResult

T = TypeVar("T")
Own = TypeVar("Own", bound=PatternOptions)
Events = Generator[RunEvent, None, T]  # yields the run's events, returns a T


@dataclass(frozen=True, slots=True)
class Prompt:
    """Input of one model step. `system` is the system prompt, `tools` offers the agent's tools.

    Without a `tier` the run's own applies, without `max_tokens` the caller's limit or the agent's.
    """

    system: str | Sequence[Block]
    messages: Sequence[Message]
    tools: bool = False
    may_call_tools: bool = True  # False: tools stay listed, as the history requires
    tier: Tier | None = None
    max_tokens: int | None = None
    json_schema: Mapping[str, Any] | None = None
    publish: bool = True  # False hides the reply's text from the client: a classification, a plan


class AgentTask(NamedTuple):
    """Task for a sub-agent: `text` is its user's turn."""

    agent: str
    text: str


@dataclass(frozen=True, slots=True)
class AgentResult:
    """Result of a sub-agent. `output` of one that failed: the reason, as far as its lead may know."""

    agent: str
    ok: bool
    output: str
    stop_reason: str = ""
    model: str = ""
    sources: tuple[dict[str, str], ...] = ()


class TreeLimits(NamedTuple):
    """Bounds of a tree of sub-agents: how many work at once, and the most that all may cost, in nano-dollars."""

    at_once: int
    cost_nano: int


class Join(NamedTuple):
    """Sub-agent that joins the results of the others: `text` makes its task of them."""

    agent: str
    text: Callable[[Sequence[AgentResult]], str]


class Steps(Protocol):
    """Journalled steps of a run.

    A completed step is replayed from the journal, in order, so a pattern must be deterministic: the same replies must
    lead to the same steps.
    """

    def model(self, name: str, prompt: Prompt) -> Events[ModelReply]:
        """Make one model call. Raises `RunLimit` beyond the run's last allowed call (`Context.max_steps`)."""

    def tools(self, name: str, reply: ModelReply) -> Events[list[ToolResult]]:
        """Run the tool calls of a reply, in order; return one result for each."""

    def call_tool(self, name: str, tool: str, arguments: Mapping[str, Any]) -> Events[ToolResult]:
        """Call one of the agent's tools as if the model had asked for it: policy, approval and claim are the same."""

    def agents(
        self, tasks: Sequence[AgentTask], limits: TreeLimits, join: Join | None = None
    ) -> Events[list[AgentResult]]:
        """Run agents of the catalog side by side; return their results in the order of the tasks, then that of `join`.

        The output of `join` is the run's answer, published as text; without it, the lead has a model call left to
        join them by itself. Raises `RunLimit` where the model calls that they may make are more than the run has left,
        `BudgetExceeded` where the most that they may cost does not fit.
        """

    def remote(self, name: str, where: RemoteSpec, messages: Sequence[Message]) -> Events[Answer]:
        """Ask a remote agent. Raises `RemoteFailed`, `RemoteUnavailable`, or why its own model calls were refused."""

    def seconds_left(self) -> float:
        """Return the seconds the run may still take. Raises why it must stop: its end, or a cancellation."""


@dataclass(frozen=True, slots=True)
class Context:
    """Run as its pattern sees it. `messages` hold the history and end with the user's turn."""

    agent: AgentDefinition
    request: RunRequest
    messages: tuple[Message, ...]
    system: str
    steps: Steps

    @property
    def max_steps(self) -> int:
        """Maximum model calls of the run."""
        return most_steps(self.agent, self.request)

    def options(self, kind: type[Own]) -> Own:
        """Return the agent's options for its pattern."""
        assert isinstance(self.agent.options, kind)
        return self.agent.options


def most_steps(agent: AgentDefinition, request: RunRequest) -> int:
    """Return the step limit: the smaller of the agent's and the caller's."""
    return min(agent.limits.steps, request.max_steps or agent.limits.steps)


class PatternModule(Protocol):
    """Module in `agents/patterns`: the pattern, its fields of `agent.yaml`, and the check of agents that use it."""

    @property
    def Options(self) -> type[PatternOptions]: ...

    def run(self, context: Context) -> Events[Answer]: ...

    def check(self, spec: AgentSpec, options: Any, knowledge: Knowledge | None) -> Iterator[Finding]:
        """Find conflicts between fields that are valid by themselves. `options` is the module's own `Options`."""


# Truncated, but still an answer: the result shows its `stop_reason`, and it is never cached.
CUT = frozenset({"max_tokens", "model_context_window_exceeded"})
WHOLE = frozenset({"end_turn", "stop_sequence"})


def answer_of(reply: ModelReply, *, sources: Sequence[dict[str, str]] = ()) -> Answer:
    """Convert a reply into the run's answer, with the sources it cites, else the given ones.

    Raises `ModelRefused`, or `ModelError` for a stop reason that yields no answer.
    """
    if reply.stop_reason == "refusal":
        raise ModelRefused()
    if reply.stop_reason not in WHOLE | CUT:
        raise ModelError("The model stopped for a reason that makes no answer")
    cited = citations(reply)
    return Answer(
        reply.text,
        reply.stop_reason,
        reply.model,
        sources=tuple(cited or sources),
        stop_sequence=reply.stop_sequence,
    )


def citations(reply: ModelReply) -> list[dict[str, str]]:
    """List the citations in a reply: title, URI and quote, without duplicates."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for block in reply.content:
        for citation in block.get("citations") or ():
            quote = citation.get("cited_text", "").strip()
            title = citation.get("document_title") or citation.get("title") or ""
            uri = citation.get("source") or ""
            if quote:
                found.setdefault((title, quote), {"title": title, "uri": uri, "quote": quote})
    return list(found.values())


def assistant_turn(reply: ModelReply) -> Message:
    """Convert a reply into history: unchanged and in order, but without blank text blocks, which the API refuses."""
    content = [block for block in reply.content if block["type"] != "text" or block["text"].strip()]
    return {"role": "assistant", "content": content}


def tool_turn(uses: Sequence[Block], results: Sequence[ToolResult]) -> Message:
    """Build the user turn that returns tool results to the model, those with text from outside in a fence."""
    blocks: list[dict[str, Any]] = [
        {
            "type": "tool_result",
            "tool_use_id": use["id"],
            "content": fenced(result.content, use["name"], use["id"], flagged=bool(result.signs))
            if result.untrusted
            else result.content,
            "is_error": not result.ok,
        }
        for use, result in zip(uses, results, strict=True)
    ]
    return {"role": "user", "content": blocks}
