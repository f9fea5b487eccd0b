"""Repeats of cases, several at once, until all are asked, the cap is reached, or it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

from service.errors import SlipwayError
from service.evals.house import House
from service.evals.judge import Judge
from service.evals.outcome import Outcome
from service.evals.results import Tally
from service.evals.trial import Trial
from service.store import run_lists
from service.store.run_lists import RunFilter
from service.store.visibility import UNRESTRICTED
from service.types import RunStatus

TRIES = 3  # of a repeat that gets no verdict
PAUSE = 1.0  # seconds before the next one
CANCEL_SECONDS = 5.0  # in which the runs under way are cancelled


class Asker:
    """Asks cases of a service, `jobs` at once. `capped`: the cap was reached, and nothing is asked any more."""

    def __init__(self, house: House, judge: Judge, jobs: int, progress: Callable[[], None]) -> None:
        self._house = house
        self._judge = judge
        self._jobs = jobs
        self._progress = progress
        self._stop = threading.Event()
        self.capped = False

    def ask(self, tallies: Sequence[Tally]) -> None:
        """Ask each of these once more, those of one case in any order; a case may be there several times.

        Raises `KeyboardInterrupt` once the runs under way are cancelled.
        """
        with ThreadPoolExecutor(self._jobs, "eval") as pool:
            try:
                asked = {pool.submit(self._once, tally): tally for tally in tallies}
                for done in as_completed(asked):
                    outcome = done.result()
                    if outcome is not None:
                        asked[done].outcomes.append(outcome)
                        self._progress()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._cancel_all()
                raise

    def _once(self, tally: Tally) -> Outcome | None:
        """Ask once; again while the model is away, or others hold what is left. None: nothing is asked any more."""
        outcome = None
        for number in range(TRIES):
            if self.capped or self._stop.wait(PAUSE if number else 0):
                break
            outcome = self._trial(tally).run()
            if outcome.counts:
                break
        self.capped |= outcome is not None and outcome.capped
        return outcome

    def _trial(self, tally: Tally) -> Trial:
        caller = self._house.caller()
        self._house.tools.inject(caller.user_id, tally.case.injected_results)
        return Trial(self._house.services, caller, tally.agent, tally.case, self._judge)

    def _cancel_all(self) -> None:
        """Cancel the runs under way, until none is left: a thread may have begun one meanwhile."""
        services = self._house.services
        end = time.monotonic() + CANCEL_SECONDS
        with suppress(SlipwayError):
            while time.monotonic() < end:
                running = services.infra.db.query(
                    lambda tx: run_lists.recent(
                        tx, RunFilter(RunStatus.RUNNING), limit=100, before=None, visible=UNRESTRICTED
                    )
                )
                if not running:
                    return
                for row in running:
                    services.runs.cancellation.cancel(services.runs.queries.get(row["id"]))
                time.sleep(0.1)
