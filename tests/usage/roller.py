"""A process that rolls usage up, call by call: `python -m tests.usage.roller URL`. Killed at any moment by its test."""

from __future__ import annotations

import sys
import time

from service.store.database import Database
from service.usage.rollup import roll_up


def main() -> None:
    db = Database(sys.argv[1])
    print("ready", flush=True)
    while True:
        if not roll_up(db, batches=20, size=3):
            time.sleep(0.005)


if __name__ == "__main__":
    main()
