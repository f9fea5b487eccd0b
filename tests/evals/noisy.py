"""Model that obeys the rules of its prompt, but for a share of its answers, by a seed."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.messages_api.asked import Asked, Said, says
from tests.messages_api.server import MessagesApi

RULE = re.compile(r"^RULE (\w+): answer with (.+)$", re.M)
NOISE = 0.1
SHRUG = "I would rather not say."


class Noisy:
    """Script: a question that names the word of a rule gets the rule's text, but for `noise` of all answers."""

    def __init__(self, seed: int, noise: float = NOISE) -> None:
        self.noise = noise
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Said:
        rules = dict(RULE.findall(asked.system))
        told = next((text for word, text in rules.items() if word in asked.prompt), SHRUG)
        with self._lock:
            strays = self._random.random() < self.noise
        return says(SHRUG if strays else told)


@contextmanager
def noisy_model(seed: int) -> Iterator[MessagesApi]:
    api = MessagesApi(Noisy(seed))
    try:
        yield api
    finally:
        api.close()
