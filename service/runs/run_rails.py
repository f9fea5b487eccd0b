"""Guardrails of one attempt at a run: what its model reads, what its tools get, and what its clients are told.

What goes to the model is filtered as it is sent, so it includes history, context, results of tools and hidden steps.
What comes out is filtered where it is told. In between, in what is stored, tools have true values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from service.agents.definitions import AgentDefinition
from service.audit.record import Action as Audited
from service.audit.record import record
from service.errors import GuardrailRefused, guardrail_refused
from service.guardrails.effort import Effort
from service.guardrails.filter import Refused, TextFilter
from service.guardrails.in_force import InForce
from service.guardrails.keyed_vault import KeyedVault
from service.guardrails.whole_texts import WholeTexts, filtered_content, filtered_messages
from service.history import title_of
from service.llm.client import ModelReply, ModelRequest
from service.observe.observer import Observer
from service.runs.journal import Journal
from service.runs.output_form import OutputForm
from service.tools.runner import MAX_PREVIEW
from service.types import Answer, Event, Message, Run

MOST_AUDITED = 50  # kinds and actions in an audit row
CUT = "…"  # at the end of a preview that was cut


class RunRails:
    """Guardrails of one attempt, or of a sub-agent in it. Without any, every text stays as it is."""

    def __init__(
        self, run: Run, in_force: InForce, vault: KeyedVault, journal: Journal, observer: Observer
    ) -> None:
        rail = in_force.rail
        self.in_force, self.rail, self.vault = in_force, rail, vault
        self._run, self._journal, self._observer = run, journal, observer
        self._asked = Effort()
        self._said = WholeTexts(in_force.mild_in, vault, self._asked)
        self._own = WholeTexts(in_force.mild_in, vault, self._asked)
        self._found = WholeTexts(rail.input, vault)
        self._out = WholeTexts(rail.output, vault)

    def of_branch(self, agent: AgentDefinition, journal: Journal) -> RunRails:
        """Return the guardrails of a sub-agent: those of the run and its own, of each part the stricter."""
        in_force = self.in_force.stricter(agent.guardrails)
        return RunRails(self._run, in_force, self.vault, journal, self._observer)

    @property
    def judges_output(self) -> bool:
        """Return whether the text of an answer is held until it is judged."""
        return self.rail.judge is not None and bool(self.rail.judge.output)

    def of_session(self) -> dict[str, Any]:
        """Return what a session keeps: its title as clients may see it, and new values behind placeholders."""
        request = self._run.request
        named = self.in_force.acts_out and request.session_id is not None
        return {
            "title": self.shown(title_of(request.question)) if named else None,
            "placeholders": self.vault.kept() if self.vault.is_new else None,
        }

    # --- on the way in ------------------------------------------------------------------------------

    def asked(self, request: ModelRequest, *, of_caller: bool, again: bool) -> ModelRequest:
        """Return a request as its model may read it. Raises `GuardrailRefused` for the result of a tool.

        `of_caller`: the system prompt is the caller's too. `again`: the step is stored, and what was found is told.
        """
        if not self.in_force.acts_in:
            return request
        system = request.system
        with self._reading():
            if of_caller:
                system = filtered_content(system, self._said, self._found)
            messages = filtered_messages(request.messages, self._said, self._found, self._own)
        request = replace(request, messages=messages, system=system)
        if again:
            self._said.acted.clear()
            self._found.acted.clear()
        else:
            self._tell("input", self._said)
            self._tell("tool", self._found)
        return request

    def messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages as a model, or a remote agent, may read them. Raises `GuardrailRefused`."""
        if not self.in_force.acts_in:
            return messages
        with self._reading():
            return filtered_messages(messages, self._said, self._found, self._own)

    def json_in(self, value: Any) -> Any:
        """Return JSON as a model may read it. Raises `GuardrailRefused`."""
        if not self.in_force.acts_in:
            return value
        with self._reading():
            return self._said.json(value)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Bound what is read for one request. Raises `GuardrailRefused`."""
        self._asked.renew()
        self._found.effort.renew()
        try:
            yield
        except Refused as refused:
            raise self.refusal("input" if self._asked.is_spent else "tool", refused) from None

    # --- on the way out -----------------------------------------------------------------------------

    def answered(self, reply: ModelReply) -> ModelReply:
        """Return a reply whose tool calls have true values in place of placeholders."""
        if not len(self.vault):
            return reply
        content = [
            {**block, "input": self.vault.restore(block["input"])}
            if block.get("type") == "tool_use"
            else block
            for block in reply.content
        ]
        return replace(reply, content=content)

    def restored(self, value: Any) -> Any:
        """Put true values in place of placeholders in JSON."""
        return self.vault.restore(value)

    def text_filter(self) -> TextFilter | None:
        """Return a filter for a text that is told as it arrives; None: nothing is to be filtered."""
        return TextFilter(self.rail.output, self.vault) if self.in_force.acts_out else None

    def filtered(self, text_filter: TextFilter, text: str) -> None:
        """Tell what a filter has found in a whole reply; its text is not filtered again."""
        self._out.acted.count(text_filter.findings)
        self._out.remember(text)
        self._tell("output", self._out)

    def out(self, value: Any) -> Any:
        """Filter a text, or every text in JSON, for clients. Raises `GuardrailRefused`."""
        if not self.in_force.acts_out or value is None:
            return value
        self._out.effort.renew()
        try:
            found = self._out.json(value)
        except Refused as refused:
            raise self.refusal("output", refused) from None
        self._tell("output", self._out)
        return found

    def answer(self, answer: Answer, form: OutputForm | None = None) -> Answer:
        """Filter an answer, its sources and its calls of the client's tools. Raises `GuardrailRefused`.

        One that has a `form` is JSON, whose values are filtered when it is read.
        """
        if not self.in_force.acts_out:
            return answer
        calls = tuple({**call, "arguments": self.out(call["arguments"])} for call in answer.client_calls)
        return replace(
            answer,
            output=answer.output if form is not None else self.out(answer.output),
            sources=tuple(self.out(list(answer.sources))),
            client_calls=calls,
            untold=self._untold(answer),
        )

    def _untold(self, answer: Answer) -> str:
        """Filter the end of an answer as what follows its beginning, which clients have."""
        if not answer.untold:
            return ""
        told = answer.output.removesuffix(answer.untold)
        text_filter = TextFilter(self.rail.output, self.vault)
        try:
            sent = text_filter.feed(told)
            rest = text_filter.feed(answer.untold) + text_filter.close()
        except Refused as refused:
            raise self.refusal("output", refused) from None
        return rest.removeprefix(told[len(sent) :]) if told.startswith(sent) else rest

    def event(self, name: Event, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Filter what an event tells of tool calls: of their arguments and results."""
        if not self.in_force.acts_out:
            return data
        changed = {
            field: self.shown(data[field], is_preview=field == "preview")
            for field in _IN_EVENTS.get(name, ())
            if data.get(field)
        }
        self._tell("output", self._out)
        return {**data, **changed} if changed else data

    def shown(self, value: Any, *, is_preview: bool = False) -> Any:
        """Filter a value beside the answer; what is refused is left out of it. A preview may end within a match."""
        if not self.in_force.acts_out:
            return value
        texts = WholeTexts(self.in_force.mild_out, self.vault)
        was_cut = is_preview and (value.endswith(CUT) or len(value) >= MAX_PREVIEW)
        try:
            found = texts.cut(value.removesuffix(CUT)) + CUT if was_cut else texts.json(value)
        except Refused:  # more than guardrails read
            found = type(value)()
        self._out.acted.update(texts.acted)
        return found

    def captured(self, value: Any) -> Any:
        """Return JSON as a trace may have it: what neither a model nor a client may read is not in it."""
        if self.in_force.acts_out:
            value = WholeTexts(self.in_force.mild_out, self.vault).json(value)
        if self.in_force.acts_in:
            value = WholeTexts(self.in_force.mild_in, self.vault).json(value)
        return value

    # --- what is told of it -------------------------------------------------------------------------

    def refusal(self, where: str, refused: Refused) -> GuardrailRefused:
        """Tell of a refusal; return it as the error that ends the run, which tells nothing of the text."""
        return self.refused(guardrail_refused(where, refused.kind))

    def refused(self, error: GuardrailRefused) -> GuardrailRefused:
        """Tell of a refusal, and return it."""
        self.publish([{**error.extra, "action": "refuse", "count": 1}])
        return error

    def _tell(self, where: str, texts: WholeTexts) -> None:
        if texts.acted:
            self.publish(texts.acted.told(where))
            texts.acted.clear()

    def publish(self, acted: Sequence[Mapping[str, Any]]) -> None:
        """Count what guardrails did, tell it, and write it into the audit, without the texts."""
        for one in acted:
            self._observer.guardrail(one["where"], one["kind"], one["action"])
            self._journal.publish_after_commit(Event.GUARDRAIL, {"step": self._journal.steps + 1, **one})
        run, told = self._run, acted[:MOST_AUDITED]
        self._journal.write_with_next(
            lambda tx: record(tx, Audited.GUARDRAIL, f"run:{run.id}", agent=run.agent, acted=told)
        )


_IN_EVENTS: Mapping[Event, Sequence[str]] = {
    Event.TOOL_CALLED: ("name", "arguments"),  # a model, or a remote agent, may name a tool that there is not
    Event.TOOL_FINISHED: ("preview",),
    Event.APPROVAL_REQUIRED: ("arguments",),
    Event.APPROVAL_DECIDED: ("arguments", "comment"),
}
