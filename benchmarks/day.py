"""A working day of questions for the bundled agents: what `make bench-cost` replays. The same for the same figures.

What is assumed, and stated in docs/saving.md: 60 percent of the talk is with `support`, 25 with `assistant`, 15 with
`analyst`; a third of all requests are turns of conversations of 2 to 20 turns, a minute or so apart; of the rest, the
topics follow Zipf's law, each is put in one of several wordings, and three in ten carry something of the asker's own,
so that nobody else asks just that. Most questions are short, one in eight is long (a pasted log, a letter).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

AT_ONCE = 8  # requests at the same moment
HOURS = 8
PEOPLE = 40
AGENTS = Path(__file__).parent.parent / "agents"
SHARES = {"support": 0.60, "assistant": 0.25, "analyst": 0.15}
TALKS, WAITS, BURSTS, OWN, LONG = 0.33, 0.10, 0.02, 0.30, 0.12  # shares; see above
TIERS = (("auto", 0.88), ("simple", 0.04), ("medium", 0.05), ("complex", 0.03))
TURNS = ((2, 40), (3, 25), (4, 14), (6, 11), (9, 6), (14, 3), (20, 1))
GAPS = (1, 1, 2, 2, 3, 3, 4, 6, 9, 20)  # moments between turns: of 10,000 requests, 23 s to almost 8 minutes

WORDINGS = {
    "support": (
        "What about {0}?",
        "How does {0} work in Harbor?",
        "I need help with {0}.",
        "Where do I find {0} in the settings, and who may change it?",
        "{0}: what do I have to do?",
        "Can you explain {0} to me in a few words? I have read the page and am still not sure.",
    ),
    "analyst": (
        "What is the figure for {0}?",
        "By how many percent did {0} change from January to June 2026?",
        "What do {1} people pay in a year, given {0}?",
        "Add up {0} for the first half of 2026 and give me the average per month.",
    ),
    "assistant": (
        "Draft a short note to my team about {0}.",
        "Give me three titles for a page on {0}.",
        "Explain {0} to somebody who has never used a computer.",
        "What should I ask before I decide on {0}?",
    ),
}
OWN_WORDS = (
    " We are {0} people in {1} offices.",
    " It began on the {1}th, on {0} of our laptops.",
    " My order is HB-{0}{1}.",
)
FOLLOW_UPS = (
    "And on a Mac?",
    "Thanks. How long does that take?",
    "That did not help. What else can I try?",
    "Who in my team can do this?",
    "Could you put that into steps?",
    "What does that mean for {0}?",
    "I tried that, and now it says H-{1}. What next?",
)
DRESS = (str, str, str, str.upper, "Hi, {}".format, "{}  ".format, "please {}".format, "{} Thanks!".format)


class Ask(NamedTuple):
    """One request: of a person, to an agent, in a session (by number) or not, and whether its answer can wait."""

    person: int
    agent: str
    text: str
    tier: str = "auto"
    session: int | None = None
    waits: bool = False


class Day:
    """Moments of requests, in order; see `moments`."""

    def __init__(self, requests: int, seed: int = 4) -> None:
        self._chance = random.Random(seed)
        self._moments = requests // AT_ONCE
        self._topics = {agent: _topics(agent) for agent in SHARES}
        self._sentences = [line for agent in AGENTS.glob("*/knowledge/*/*.md") for line in _sentences(agent)]
        self._due: dict[int, list[Ask]] = {}
        self._sessions = 0

    def moments(self) -> Iterator[list[Ask]]:
        """What is asked at the same moment, moment by moment: turns of conversations that are due, and new ones."""
        chance = self._chance
        for now in range(self._moments):
            asked = self._due.pop(now, [])
            self._due.setdefault(now + 1, []).extend(asked[AT_ONCE:])
            del asked[AT_ONCE:]
            if not asked and chance.random() < BURSTS:  # something has happened, and everybody asks the same
                yield [
                    Ask(chance.randrange(PEOPLE), "support", f"Is sync down? Notice {now} says so.")
                ] * AT_ONCE
                continue
            while len(asked) < AT_ONCE:
                asked.append(self._new(now))
            yield asked

    def _new(self, now: int) -> Ask:
        chance = self._chance
        [agent] = chance.choices(list(SHARES), list(SHARES.values()))
        [tier] = chance.choices([name for name, _ in TIERS], [share for _, share in TIERS])
        ask = Ask(chance.randrange(PEOPLE), agent, self._question(agent), tier)
        # A conversation has four turns or so, so one new request in nine makes a third of all of them turns.
        if chance.random() < TALKS / 3 and agent != "analyst":
            return self._talk(ask, now)
        if chance.random() < WAITS / (1 - TALKS):
            return ask._replace(
                agent="assistant", text=f"Sum this up for the file. {self._pasted()}", waits=True
            )
        return ask._replace(text=chance.choice(DRESS)(ask.text))

    def _talk(self, ask: Ask, now: int) -> Ask:
        """The first turn; the others are put down for later."""
        chance = self._chance
        self._sessions += 1
        first = ask._replace(session=self._sessions)
        [turns] = chance.choices([n for n, _ in TURNS], [weight for _, weight in TURNS])
        for _ in range(turns - 1):
            now += chance.choice(GAPS)
            text = chance.choice(FOLLOW_UPS).format(
                chance.choice(self._topics[ask.agent]), chance.randrange(99)
            )
            self._due.setdefault(now, []).append(first._replace(text=text))
        return first

    def _question(self, agent: str) -> str:
        chance, topics = self._chance, self._topics[agent]
        [topic] = chance.choices(topics, [1 / rank for rank in range(1, len(topics) + 1)])
        text = chance.choice(WORDINGS[agent]).format(topic, chance.randrange(5, 60))
        if chance.random() < OWN:
            text += chance.choice(OWN_WORDS).format(chance.randrange(3, 400), chance.randrange(2, 29))
        if chance.random() < LONG:
            text += f" This is what I have:\n{self._pasted()}"
        return text

    def _pasted(self) -> str:
        """What people paste: 60 to 400 words, no two the same."""
        lines = self._chance.sample(self._sentences, self._chance.randrange(4, 24))
        return f"Ticket {self._chance.randrange(10**6)}\n" + "\n".join(lines)


def _topics(agent: str) -> list[str]:
    """The headings of its documents; those without any talk about everything. In an order of their own."""
    pages = sorted((AGENTS / agent).glob("knowledge/*/*.md")) or sorted(AGENTS.glob("*/knowledge/*/*.md"))
    found = [
        line.lstrip("# ").strip()
        for page in pages
        for line in page.read_text().splitlines()
        if line[:2] == "##"
    ]
    random.Random(agent).shuffle(found)
    return found


def _sentences(page: Path) -> list[str]:
    text = re.sub(r"^[#|].*$", "", page.read_text(), flags=re.M)
    return [part.strip() for part in re.split(r"(?<=[.:])\s+", text) if len(part) > 30]
