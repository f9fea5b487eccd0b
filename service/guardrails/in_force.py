"""Guardrails in force for a run, with what follows from them: computed once for all runs that have the same."""

from __future__ import annotations

from dataclasses import dataclass

from service.guardrails.policy import OFF, Action, Rail, SideSpec, stricter


@dataclass(frozen=True, slots=True)
class InForce:
    """Guardrails, whether each side acts, and sides that redact what they would refuse, see `lenient`."""

    rail: Rail
    acts_in: bool
    acts_out: bool
    refuses_in: bool
    mild_in: SideSpec
    mild_out: SideSpec

    @classmethod
    def of(cls, rail: Rail) -> InForce:
        mild_in, mild_out = lenient(rail.input), lenient(rail.output)
        refuses = rail.input.max_length is not None or mild_in != rail.input
        return cls(rail, rail.input.acts, rail.output.acts, refuses, mild_in, mild_out)

    def stricter(self, rail: Rail) -> InForce:
        """Return what is in force beside the guardrails of another agent."""
        return InForce.of(stricter(self.rail, rail)) if rail.acts else self


def lenient(side: SideSpec) -> SideSpec:
    """Return a side that redacts what it would refuse: for text from before, which is not to be refused again."""

    def milder(action: object) -> object:
        return Action.REDACT if action is Action.REFUSE else action

    rules = [rule.model_copy(update={"action": milder(rule.action)}) for rule in side.rules]
    changes = {name: milder(value) for name, value in side if name not in ("rules", "max_length")}
    return side.model_copy(update={**changes, "rules": tuple(rules), "max_length": None})


NOTHING = InForce.of(OFF)
