"""Images and documents of model calls: stored with the run that brings them, read where a model is asked.

So a conversation carries references only, and whichever worker takes a run up finds the content in the database.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from service.agents.definitions import AgentDefinition
from service.errors import TooLarge, fault
from service.files import put_back, references, to_leave_out
from service.llm.client import ModelCall, ModelClient, ModelReply, ModelRequest, TextDelta
from service.runs.bytes_in_flight import BytesInFlight
from service.store import files as rows
from service.store.database import Database, Transaction
from service.types import Message, Run
from service.usage.prices import PriceTable, today

WITHOUT_FILES = ("orchestrator", "remote")  # patterns that pass on words only
WAIT_SECONDS = 30.0  # for room: other calls with files end meanwhile


def check(agent: AgentDefinition, messages: Sequence[Message], prices: PriceTable) -> None:
    """Check that an agent and each of its models take the files in messages. Raises `Invalid` and `PriceUnknown`."""
    if not references(messages):
        return
    if agent.pattern in WITHOUT_FILES:
        detail = f"The agent {agent.id} takes no images or documents: its pattern is {agent.pattern}"
        raise fault("/messages", detail)
    for model in agent.models:
        if not prices.price(model, today()).takes_files:
            raise fault(
                "/messages", f"The model {model} of the agent {agent.id} takes no images or documents"
            )


def store(tx: Transaction, run: Run, most: int) -> None:
    """Store the files of a new run, and that it refers to those of the run that it goes on from.

    Once that is committed, this process lets go of them. Raises `TooLarge` where its user then had more than `most`
    bytes: calls that no cap has room for are stored, too, and must not fill the disk.
    """
    earlier = {one["digest"] for one in references(run.request.messages)} - (run.request.files or {}).keys()
    if earlier:
        rows.refer(tx, run, sorted(earlier))
    if run.request.files:
        if rows.insert(tx, run, dict(run.request.files)) and rows.stored_bytes(tx, run.user_id) > most:
            raise TooLarge(
                f"More than {most} bytes of your images and documents would be stored. Delete responses or sessions "
                "that have some."
            )
        tx.after_commit(run.request.files.clear)


@dataclass(frozen=True, slots=True)
class ClientWithFiles:
    """Model client whose requests hold references, in place of which the model gets the content. One per process."""

    client: ModelClient
    db: Database
    room: BytesInFlight

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]:
        with self._whole(request, call) as whole:
            return (yield from self.client.create(whole, call))

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        with self._whole(request, call) as whole:
            return self.client.count_tokens(whole, call)

    def ping(self) -> None:
        self.client.ping()

    def close(self) -> None:
        self.client.close()

    @contextmanager
    def _whole(self, request: ModelRequest, call: ModelCall) -> Iterator[ModelRequest]:
        """Read the files of a request, while there is room for them. Raises `Overloaded` and `DatabaseUnavailable`."""
        user_id, found = request.user_id, references(request.messages)
        if user_id is None or not found:
            yield replace(
                request, messages=put_back(request.messages, {})
            )  # documents of text agree on citations
            return
        left_out = to_leave_out(request.messages)
        sent = found[left_out:]
        size, digests = sum(one["size"] for one in sent), {one["digest"] for one in sent}
        with self.room.take(user_id, size, min(WAIT_SECONDS, call.remaining())):
            data = self.db.query(partial(rows.data, user_id=user_id, digests=digests))
            yield replace(request, messages=put_back(request.messages, data, left_out))
