"""Round trip to Redis that several parts of a request share: Lua scripts in order, until one of them stops the rest.

A script takes part by what it returns: its answer and, where no later call may run, `true`. So a refused call claims
nothing, in the trip that refuses it. A call that fails has no answer, as if Redis were away, and stops nothing.
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

# ARGV: the number of keys and of arguments of each call, then the arguments of all. Returns whether a call stopped the
# rest, and the answers up to there. READONLY ends the trip: redis-py then looks for the master of its Sentinels.
_IN_ORDER = """
local calls = {
%s
}
local function part(list, first, size)
  local found = {}
  for place = 1, size do found[place] = list[first + place] end
  return found
end
local answers, key, argument = {0}, 0, 2 * #calls
for number, call in ipairs(calls) do
  local keys, arguments = tonumber(ARGV[2 * number - 1]), tonumber(ARGV[2 * number])
  local ran, answer, stops = pcall(call, part(KEYS, key, keys), part(ARGV, argument, arguments))
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
class ScriptCall:
    """Script of a trip, with its keys and arguments.

    `read` gets the answer, None where Redis is away or refuses the script, and may raise a `SlipwayError`. Until then,
    and after an earlier call that stopped the trip, `reached` is False.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]
    read: Callable[[Any], None] = lambda answer: None
    reached: bool = False
    answer: Any = None


class Trip:
    """Calls that wait for a round trip. Once sent, the trip is empty, and takes others."""

    def __init__(self, redis_store: RedisStore) -> None:
        self._redis_store = redis_store
        self._calls: list[ScriptCall] = []

    def add(self, *calls: ScriptCall) -> None:
        self._calls += calls

    def send(self) -> None:
        """Run the calls in one round trip, on a cluster in one each; nothing to do without calls.

        Raises the first error of their readers. The calls after it that were run are read too, so that what they have
        taken can be given back.
        """
        if not self._calls:
            return
        calls, self._calls = self._calls, []
        together = len(calls) == 1 or isinstance(self._redis_store.client, redis.Redis)
        refusal: SlipwayError | None = None
        for group in [calls] if together else [[call] for call in calls]:
            stopped, answers = self._answers(group)
            for call, answer in zip(group, answers, strict=False):
                if answer is None and refusal is not None:
                    continue
                call.answer, call.reached = answer, True
                try:
                    call.read(answer)
                except SlipwayError as error:
                    refusal = refusal or error
            if stopped or refusal is not None:
                break
        if refusal is not None:
            raise refusal

    def _answers(self, calls: Sequence[ScriptCall]) -> tuple[bool, list[Any]]:
        """Run calls; return whether one stopped the rest, and the answers up to there."""
        keys = [key for call in calls for key in call.keys]
        sizes = [size for call in calls for size in (len(call.keys), len(call.arguments))]
        arguments = [argument for call in calls for argument in call.arguments]
        script = _in_order(*[call.script for call in calls])
        found = self._redis_store.call(lambda client: script(client, keys, *sizes, *arguments), None)
        if found is None:
            return False, [None] * len(calls)
        stopped, *answers = found
        for place, answer in enumerate(answers):
            if isinstance(answer, RedisError):
                self._redis_store.note_refusal(answer)
                answers[place] = None
        return stopped == 1, answers


@cache
def _in_order(*scripts: Script) -> Script:
    functions = (f"function(KEYS, ARGV)\n{script.source}\nend" for script in scripts)
    return Script(_IN_ORDER % ",\n".join(functions))
