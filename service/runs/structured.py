"""Structured answers: the pattern's answer is checked against its form, repaired once, and only then told."""

from __future__ import annotations

from dataclasses import replace

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events, answer_of
from service.errors import ModelRefused, OutputInvalid, RunLimit
from service.guardrails.prompt_marker import without_prompt
from service.runs.attempt import Attempt
from service.runs.judge import judged, tell_judged
from service.runs.output_form import Reading
from service.runs.steps import RunSteps
from service.runs.untrusted import clean
from service.types import Answer

REPAIR_STEP = "repair"


def structured(answer: Answer, attempt: Attempt, steps: RunSteps, agent: AgentDefinition) -> Events[Answer]:
    """Return the answer in the run's form, judged where guardrails ask for it, and tell it.

    No text of the run was told until then.

    Raises `OutputInvalid` for one that stays invalid, whose text is told too, and as a model step does.
    """
    form = attempt.form
    if form is None:
        return (yield from tell_judged(answer, attempt, steps))

    def cleaned(text: str) -> str:
        filtered: str = attempt.rails.out(without_prompt(clean(text, attempt.taint, agent), agent.marker))
        return filtered

    reading, why = form.read(answer.output, cleaned), ""
    if reading.faults:
        try:
            reply = yield from steps.model(REPAIR_STEP, form.repair(attempt.run.request.question, reading))
            repaired = answer_of(reply)
        except RunLimit:
            why = ", and no step was left to repair it"
        except ModelRefused:
            why = ", and the model declined to repair it"
        else:
            why = ", also after a repair"
            answer = replace(repaired, sources=answer.sources)
            reading = form.read(answer.output, cleaned)
    yield from judged("output", reading.text, attempt, steps)
    if reading.text:
        yield from attempt.text.tell(cleaned(reading.text) if reading.faults else reading.text)
    if reading.faults:
        raise OutputInvalid(_detail(reading, why))
    return replace(answer, output=reading.text, structured=reading.value)


def _detail(reading: Reading, why: str) -> str:
    return f"The model's answer does not fit the schema{why}: {reading.where}."
