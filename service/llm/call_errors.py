"""Errors of one model call: those of the SDK and the transport, mapped to `SlipwayError`s."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from service.errors import ModelRejected, RunCancelled, SlipwayError
from service.llm.client import ModelCall
from service.llm.sdk import anthropic
from service.llm.upstream import broken_off, refused, unreached

NEVER_SENT = (httpx2.PoolTimeout, httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)


@contextmanager
def our_errors(call: ModelCall) -> Iterator[None]:
    """Map errors of the SDK and the transport to `SlipwayError`s; `RunCancelled` when the call was aborted."""
    try:
        yield
        failed: SlipwayError | None = None
    except anthropic.APIStatusError as error:
        call.progress.refused(error.status_code)
        headers = error.response.headers
        failed = refused(error.status_code, error.type, error.error_code, headers, error.body)
    except anthropic.APIConnectionError as error:
        call.progress.billable = call.progress.billable and not isinstance(error.__cause__, NEVER_SENT)
        failed = unreached(error.__cause__)
    except httpx2.HTTPError as error:
        failed = broken_off(error)
    except SlipwayError as error:
        failed = error
    except (TypeError, ValueError, RecursionError):
        failed = ModelRejected("The request cannot be sent to the model")  # such as invalid Unicode
    if call.aborted:
        raise RunCancelled() from None
    if failed is not None:
        raise failed from None  # the cause carries the upstream's text, which must not reach the logs
