"""Round trip to Redis that several parts of a request share: Lua scripts in order, until one of them stops the rest.

A script takes part by what it returns: its answer and, where no later step may run, `true`. So a refused call claims
nothing, in the trip that refuses it. A step that fails has no answer, as if Redis were away, and stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import redis
from redis.exceptions import RedisError

from service.errors import SlipwayError
from service.infra.redis import RedisStore
from service.infra.redis_client import Script

# ARGV: the number of keys and of arguments of each step, then the arguments of all. Returns whether a step stopped the
# rest, and the answers up to there. READONLY ends the trip: redis-py then looks for the master of its Sentinels.
_IN_ORDER = """
local steps = {
%s
}
local function part(list, first, size)
  local found = {}
  for place = 1, size do found[place] = list[first + place] end
  return found
end
local answers, key, argument = {0}, 0, 2 * #steps
for number, step in ipairs(steps) do
  local keys, arguments = tonumber(ARGV[2 * number - 1]), tonumber(ARGV[2 * number])
  local ran, answer, stops = pcall(step, part(KEYS, key, keys), part(ARGV, argument, arguments))
  if not ran then
    answer = {err = type(answer) == 'table' and answer.err or tostring(answer)}
    if string.find(answer.err, 'READONLY', 1, true) then return answer end
  end
  answers[number + 1] = answer or false
  if ran and stops then
    answers[1] = 1
    break
  end
  key, argument = key + keys, argument + arguments
end
return answers
"""


@dataclass(slots=True)
class Step:
    """Script of a trip, with its keys and arguments.

    `read` gets the answer, None where Redis is away or refuses the script, and may raise a `SlipwayError`. Until then,
    and after an earlier step that stopped the trip, `reached` is False.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]
    read: Callable[[Any], None] = lambda answer: None
    reached: bool = False
    answer: Any = None


class Trip:
    """Steps that wait for a round trip. Once sent, the trip is empty, and takes others."""

    def __init__(self, redis_store: RedisStore) -> None:
        self._redis_store = redis_store
        self._steps: list[Step] = []

    def add(self, *steps: Step) -> None:
        self._steps += steps

    def send(self) -> None:
        """Run the steps in one round trip, on a cluster in one each; nothing to do without steps.

        Raises the first error of their readers. The steps after it that were run are read too, so that what they have
        taken can be given back.
        """
        steps, self._steps = self._steps, []
        together = len(steps) == 1 or isinstance(self._redis_store.client, redis.Redis)
        refusal: SlipwayError | None = None
        for group in [steps] if together else [[step] for step in steps]:
            stopped, answers = self._answers(group)
            for step, answer in zip(group, answers, strict=False):
                if answer is None and refusal is not None:
                    continue
                step.answer, step.reached = answer, True
                try:
                    step.read(answer)
                except SlipwayError as error:
                    refusal = refusal or error
            if stopped or refusal is not None:
                break
        if refusal is not None:
            raise refusal

    def _answers(self, steps: Sequence[Step]) -> tuple[bool, list[Any]]:
        """Run steps; return whether one stopped the rest, and the answers up to there."""
        if not steps:
            return False, []
        keys = [key for step in steps for key in step.keys]
        sizes = [size for step in steps for size in (len(step.keys), len(step.arguments))]
        arguments = [argument for step in steps for argument in step.arguments]
        script = _in_order(tuple(step.script for step in steps))
        found = self._redis_store.call(lambda client: script(client, keys, *sizes, *arguments), None)
        if found is None:
            return False, [None] * len(steps)
        stopped, *answers = found
        return stopped == 1, [self._noted(answer) for answer in answers]

    def _noted(self, answer: Any) -> Any:
        if not isinstance(answer, RedisError):
            return answer
        self._redis_store.note_refusal(answer)
        return None


@cache
def _in_order(scripts: tuple[Script, ...]) -> Script:
    functions = (f"function(KEYS, ARGV)\n{script.source}\nend" for script in scripts)
    return Script(_IN_ORDER % ",\n".join(functions))
