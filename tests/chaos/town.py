"""Service with a task worker and concurrent users, for tests of locks."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2

from tests.conftest import Slipway
from tests.usage.house import House
from tests.web.people import PASSWORD


class Town:
    """Service with a task worker, concurrent users, and their answers."""

    def __init__(self, server: Slipway, books: House) -> None:
        self.server = server
        self.books = books
        self.over = threading.Event()
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.admin = server.client()
        self.names: dict[str, str] = {}  # by user id
        self.users = [self.join() for _ in range(4)]
        self.linked: list[str] = []  # users whom an issuer knows
        self.stale: list[str] = []  # sessions whose time is to be over

    def join(self) -> tuple[str, httpx2.Client]:
        username = f"user-{random.getrandbits(64):x}"
        body = {"username": username, "password": PASSWORD, "role": "user"}
        user_id = self.admin.post("/v1/admin/users", json=body).json()["id"]
        self.names[user_id] = username
        return user_id, self.server.client(username, PASSWORD)

    def send(self, client: httpx2.Client, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer; records statuses that a server must not send."""
        answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
        kind = path.split("/")[2] + ("" if method != "PUT" else " set")
        self.answers[f"{kind} {answer.status_code}"] += 1
        if answer.status_code >= 500 and answer.json().get("code") != "agent_stopped":
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content and "json" in answer.headers["Content-Type"] else {}

    def ask(self, client: httpx2.Client, agent: str, text: str, door: str = "invoke", **more: Any) -> Any:
        body = {"input": text, "cache": "bypass", **more}
        return self.send(client, "POST", f"/v1/agents/{agent}/{door}", body)

    def anyone(self) -> httpx2.Client:
        return random.choice(self.users)[1]

    def repeat(self, work: Callable[[Town, int], object], pause: float = 0.0) -> threading.Thread:
        def loop() -> None:
            turn = 0
            try:
                while not self.over.wait(pause * random.random()):
                    work(self, turn)
                    turn += 1
            except Exception as error:
                self.wrong.append(f"{work.__name__}: {error!r}")
            self.answers[f"turns of {work.__name__}"] += turn

        thread = threading.Thread(target=loop)
        thread.start()
        return thread
