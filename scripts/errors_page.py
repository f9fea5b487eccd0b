"""Print docs/errors.md from the error tree: `python -m scripts.errors_page`."""

from __future__ import annotations

import sys

from service.error_table import all_errors, is_retryable
from service.errors import ModelKeyRefused, PriceUnknown, SlipwayError

HEAD = """# Errors

Generated from `service/errors.py` by `make docs`; `make check` compares them.

Every error of every route is a problem document of RFC 9457, `application/problem+json`. Use `code`: it is stable.
`detail` is for people, and may change. Neither contains a secret, a stack trace or a message of a database or an
upstream.

```json
{"type": "/docs/errors#invalid", "title": "A field does not fit", "status": 422,
 "detail": "The request does not fit; see `errors`.", "code": "invalid",
 "instance": "/v1/agents/support/invoke", "request_id": "3c82961686d543f787ed69b20833b2c6",
 "errors": [{"pointer": "/input", "detail": "Input should be a valid string"}]}
```

`request_id` is also the header `X-Request-ID`, and identifies the request in the logs. `errors` names every invalid
field by its JSON pointer. The answer to a failed run is its problem document with its `run_id`. Requests that are
not valid HTTP get a problem document too.

**Retry?** says whether the same request may succeed later. *Yes*: after `Retry-After` seconds if that header is
present (always with 429 and 503), else with a growing pause. *No*: change the request first.

With an `Idempotency-Key`: without an answer, retry with the same key, since the first request may have been
served. An answer with a `run_id` belongs to that key, also a failure: it is replayed for a
day. One exception: a run that failed with a *yes* of this table, without a call of a tool with side effects, releases
its key after `Retry-After` (a second where there was none). The same key then starts another run.

| status | `code` | meaning | retry? |
| --- | --- | --- | --- |
"""
FOR_OPERATORS = (PriceUnknown, ModelKeyRefused)  # lasts until an operator acts


def page() -> str:
    """Return the page: one row for each code, by status."""
    return HEAD + "".join(f"{_row(error)}\n" for error in all_errors())


def _row(error: type[SlipwayError]) -> str:
    return f'| {error.status} | <a id="{error.code}"></a>`{error.code}` | {error.title} | {_again(error)} |'


def _again(error: type[SlipwayError]) -> str:
    if issubclass(error, FOR_OPERATORS):
        return "no, tell the operator"
    return "yes" if is_retryable(error) else "no"


if __name__ == "__main__":
    sys.stdout.write(page())
