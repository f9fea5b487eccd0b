"""Reply of a model as it arrives: its text is told at once, and an interrupted call is settled too."""

from __future__ import annotations

import time
from functools import partial

from service.agents.pattern import Events
from service.llm.client import ModelClient, ModelReply, ModelRequest
from service.runs.attempt import Attempt
from service.runs.billing import CallBilling


def receive(
    client: ModelClient, attempt: Attempt, request: ModelRequest, billing: CallBilling
) -> Events[ModelReply]:
    """Receive the reply to a request that is held. Raises why the run must stop, and `GuardrailRefused`."""
    began = time.monotonic()
    text, handle = attempt.text, attempt.handle
    call = handle.call(
        on_text=lambda piece: text.write_or_end(piece, call.abort),
        before_retry=partial(billing.reserve_again, request),
    )
    answer = client.create(request, call)
    try:
        while True:
            try:
                delta = next(answer)
            except StopIteration as done:
                reply: ModelReply = done.value
                return reply
            yield from text.write_or_end(delta.text, call.abort)
    except Exception:
        billing.settle_failed(request, call.progress)
        if not call.aborted:
            raise
        raise (text.refused or handle.why()) from None
    finally:
        answer.close()
        handle.over(call)
        attempt.model_seconds += time.monotonic() - began
