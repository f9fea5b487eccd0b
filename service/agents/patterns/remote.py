"""Remote pattern: a service elsewhere answers, over one POST or A2A; its model calls come back through the gateway."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from service.agents.definitions import Finding
from service.agents.pattern import Context, Events
from service.agents.pattern_checks import documents_unread
from service.agents.remote_spec import RemoteSpec
from service.agents.spec import MOST_TOKENS, AgentSpec, Extent, PatternOptions
from service.knowledge import Knowledge
from service.types import Answer


class Options(PatternOptions):
    """Options of this pattern."""

    remote: RemoteSpec | None = Field(
        default=None, description="Pattern `remote` only: the service that answers"
    )

    def extent(self, steps: int, tokens: int, own: int) -> Extent:
        return Extent(steps, MOST_TOKENS, free=True)


def run(context: Context) -> Events[Answer]:
    where = context.options(Options).remote
    assert where is not None  # see `check`
    return (yield from context.steps.remote("ask", where, context.messages))


def check(spec: AgentSpec, options: Options, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Find an agent without an address; warn of documents, which only the service itself could read."""
    if options.remote is None:
        yield Finding(("remote",), "pattern remote needs the `url` of the service that answers")
    yield from documents_unread(spec, knowledge)
