"""A process that spends: `python -m tests.usage.spender URL BILL CALLS THREADS`. Killed at any moment by its test.

It notes in the file BILL, as the provider would, what each call cost, between its hold and its settlement.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time

from service.errors import BudgetExceeded
from service.types import Usage
from tests.usage.house import SONNET, House, a_run


def spend(house: House, bill: int, calls: int) -> None:
    refused = 0
    for _ in range(calls):
        run = a_run(f"usr_{random.randrange(3)}")
        try:
            reserved = house.reserve(run)
        except BudgetExceeded:
            refused += 1
            continue
        used = Usage(
            random.randrange(100, 500), random.randrange(reserved.max_tokens // 2, reserved.max_tokens)
        )
        os.write(bill, f"{SONNET.cost(used)}\n".encode())  # from here on it is billed, whatever happens to us
        time.sleep(random.uniform(0, 0.01))
        house.settle(reserved, used)


def main() -> None:
    url, path, calls, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    house = House(url, create=False, patience=1.0)
    bill = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print("ready", flush=True)
    workers = [threading.Thread(target=spend, args=(house, bill, calls // threads)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
