"""Answers of remote agents in the journal, and the errors that failed ones end a run with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service import errors
from service.errors import RemoteFailed, SlipwayError
from service.remote.task import RemoteAnswer
from service.text.sanitise import storable_json

# Codes that a remote agent may end the run with, as its own.
_PASSED_ON: dict[str, type[SlipwayError]] = {
    kind.code: kind
    for kind in (
        errors.BudgetExceeded,
        errors.RunLimit,
        errors.ModelError,
        errors.ModelUnavailable,
        errors.ModelRateLimited,
        errors.ModelTimeout,
        errors.ModelInterrupted,
        errors.ModelRejected,
        errors.PromptTooLong,
        errors.ModelRefused,
        errors.OutputInvalid,
        errors.AgentFault,
    )
}


def stored_answer(answer: RemoteAnswer, output: str, model: str) -> dict[str, Any]:
    """Build the reply of the step that stores an answer; `model`: of its last gateway call."""
    stored: dict[str, Any] = storable_json(
        {
            "status": answer.status,
            "output": output,
            "stop_reason": answer.stop_reason,
            "model": model,
            "sources": list(answer.sources),
            "tools": list(answer.tools),
            "error_code": answer.error_code,
            "questions": [question._asdict() for question in answer.questions],
            "state": answer.state,
        }
    )
    return stored


def failure_of(stored: Mapping[str, Any]) -> SlipwayError:
    """Return the error of a failed answer, in words of our own: its own may say anything."""
    kind = _PASSED_ON.get(stored["error_code"])
    return kind() if kind is not None else RemoteFailed("The remote agent failed.")
