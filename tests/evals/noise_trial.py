"""Trial of `flask evals run` beside a noisy model: alarms with and without a seeded regression.

`python -m tests.evals.noise_trial --cases 5 --repeat 10 --without 20 --with 10`. A minute or two; prints a line each.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from tests.evals.house import app_of, write_agent
from tests.evals.noisy import Noisy, noisy_model
from tests.messages_api.server import MessagesApi

WORDS = [f"topic{number:02d}" for number in range(40)]


def prompt(words: list[str], regressed: dict[str, str]) -> str:
    return "\n".join(f"RULE {word}: answer with {regressed.get(word, f'fact {word}')}" for word in words)


class Trial:
    """Agent with a rule for each case. A regression takes the rule of one case away, or changes what it says."""

    def __init__(self, api: MessagesApi, home: Path, cases: int, repeat: int) -> None:
        self._api, self._home, self._repeat = api, home, repeat
        self._words = WORDS[:cases]

    def run(self, seed: int, regressed: dict[str, str], *options: str) -> int:
        """Return the exit code of one run of evals; a new baseline is at its side."""
        self._api.script = Noisy(seed)
        left = [word for word in self._words if regressed.get(word) != ""]
        cases = [
            {"input": f"What of {word}?", "expect": {"contains": [f"fact {word}"]}} for word in self._words
        ]
        write_agent(self._home / "agents", cases, prompt=prompt(left, regressed) or "Be good.")
        app = app_of(
            self._home / "agents", {"ANTHROPIC_BASE_URL": self._api.url, "SLIPWAY_HOME": str(self._home)}
        )
        words = ["evals", "run", "--repeat", str(self._repeat), *options]
        return app.test_cli_runner().invoke(args=words).exit_code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("cases", 5), ("repeat", 10), ("without", 20), ("with", 10), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = vars(parser.parse_args())
    seeds = random.Random(given["seed"])
    with tempfile.TemporaryDirectory(prefix="slw") as home, noisy_model(0) as api:
        trial = Trial(api, Path(home), given["cases"], given["repeat"])
        base = str(Path(home) / "base.json")
        alarms = 0
        for _ in range(given["without"]):
            assert trial.run(seeds.getrandbits(32), {}, "--baseline-out", base) == 0
            alarms += trial.run(seeds.getrandbits(32), {}, "--against", base) == 1
        print(f"without a regression: {alarms} alarms in {given['without']} runs", flush=True)
        caught = 0
        for number in range(given["with"]):
            assert trial.run(seeds.getrandbits(32), {}, "--baseline-out", base) == 0
            word = seeds.choice(WORDS[: given["cases"]])
            changed = {word: "" if number % 2 else "another fact"}
            caught += trial.run(seeds.getrandbits(32), changed, "--against", base) == 1
        print(f"with a seeded regression: {caught} caught in {given['with']} runs", flush=True)


if __name__ == "__main__":
    main()
