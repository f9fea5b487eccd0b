"""Load in the mix of a working day, for Locust: `locust -f benchmarks/locustfile.py --host http://…`.

`make bench-load` runs it against production's shape, with people who are signed in already (`--signed-in`). Against
any other deployment give it an admin (`--admin`, `--admin-password`): it makes the people, signs them in, and decides
approvals as that admin. A deployment needs the agents `assistant` and `notary` (`benchmarks/agents`), and limits of
log-ins and of writes that let one address and one admin do all this. Questions are new but for those of `again`: with a
real model behind it, this costs money.

Each person does one thing after another, and thinks between them. `SHARES` is how often each thing is chosen, in
percent; a tag selects one alone: `--tags stream`. A wrong or incomplete answer counts as a failure.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import gevent
from locust import HttpUser, events, tag, task
from locust.env import Environment
from locust.exception import StopUser

from benchmarks.shots import AT_ONCE, STREAM, prompt
from benchmarks.upstream import PIECE, Wish

SHARES = {
    "invoke": 25,  # a new question, answered at once
    "again": 25,  # one of the person's own questions again: the answer cache
    "stream": 25,  # a new question, read as it is written
    "task": 3,  # work in the background, polled until it is done
    "approval": 2,  # a tool that waits for a person, who approves
    "usage": 15,  # the page of usage: the month by day, the budget, the newest runs
    "sign_in": 5,  # a new device
}
PASSWORD = "a-password-of-the-load"
OWN_QUESTIONS = 3  # that a person asks over and over
POLL, PATIENCE = 0.5, 60.0  # seconds between polls, and until a run counts as lost
PAUSE = 1.0, 3.0  # seconds of thinking, at least and at most


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add what the load needs to know beside Locust's own options."""
    parser.add_argument("--admin", default="demo", help="name of an admin of the deployment")
    parser.add_argument("--admin-password", default="demo-password", is_secret=True)
    parser.add_argument(
        "--signed-in", default="", help="file: JSON list of name, password and headers, the admin first"
    )
    parser.add_argument("--things", type=int, default=0, help="done by all before the test ends; 0: no end")
    parser.add_argument(
        "--model-ms", type=int, default=2000, help="milliseconds that the benchmark's model takes; 0: none"
    )


def log_in(client: Any, name: str, password: str) -> dict[str, str]:
    """Return the headers of one who has signed in. Raises `StopUser` where that fails: nothing else can work."""
    login = {"username": name, "password": password}
    with client.post("/v1/auth/login", json=login, name="sign in", catch_response=True) as answer:
        if answer.status_code != 200:
            answer.failure(f"{answer.status_code} {answer.text[:200]}")
            raise StopUser
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}


class Person(HttpUser):
    """One signed-in person."""

    known: ClassVar[list[dict[str, Any]]] = []  # name, password and headers of each; the admin first
    taken = done = 0

    def wait_time(self) -> float:
        """Return the seconds of thinking; after the last of `--things` end the test."""
        Person.done += 1
        if Person.done == self.environment.parsed_options.things:
            gevent.spawn(self.environment.runner.quit)
        return random.uniform(*PAUSE)

    def on_start(self) -> None:
        """Take one who is signed in, or make one and sign in."""
        options = self.environment.parsed_options
        self.wish = Wish(wait=options.model_ms, first=options.model_ms)  # a task's answer is streamed
        self.stream_wish = STREAM if options.model_ms else AT_ONCE
        if not Person.known and options.signed_in:
            Person.known = json.loads(Path(options.signed_in).read_text())
        elif not Person.known:
            headers = log_in(self.client, options.admin, options.admin_password)
            Person.known = [{"name": options.admin, "headers": headers}]
        self.admin = Person.known[0]["headers"]
        Person.taken += 1
        mine = self._made(Person.taken) if not options.signed_in else _one_of(Person.known[1:], Person.taken)
        self.name, self.password, self.headers = mine["name"], mine["password"], mine["headers"]
        self.own = [self._new(self.wish) for _ in range(OWN_QUESTIONS)]

    def _made(self, number: int) -> dict[str, Any]:
        """Make a person, who may be there since an earlier run, and sign in."""
        login = {"username": f"load-{number}", "password": PASSWORD}
        with self.client.post(
            "/v1/admin/users",
            json={**login, "role": "user"},
            headers=self.admin,
            name="make a person",
            catch_response=True,
        ) as answer:
            if answer.status_code == 409:
                answer.success()
        headers = log_in(self.client, login["username"], PASSWORD)
        return {"name": login["username"], "password": PASSWORD, "headers": headers}

    @tag("invoke")
    @task(SHARES["invoke"])
    def invoke(self) -> None:
        self._run("assistant", "invoke", self._new(self.wish), {"succeeded"})

    @tag("again")
    @task(SHARES["again"])
    def again(self) -> None:
        body = {"input": random.choice(self.own)}
        with self._post("/v1/agents/assistant/invoke", body, "again") as answer:
            if answer.status_code == 200 and answer.headers.get("X-Cache") == "miss":
                answer.request_meta["name"] = "again: first time"

    @tag("stream")
    @task(SHARES["stream"])
    def stream(self) -> None:
        """Read every event; the time until the first text is an entry of its own."""
        began, first, pieces, last = time.perf_counter(), 0.0, 0, ""
        body = {"input": self._new(self.stream_wish)}
        with self._post("/v1/agents/assistant/stream", body, "stream", stream=True) as answer:
            for line in answer.iter_lines():
                if line.startswith(b"event: "):
                    last = line[7:].decode()
                    if last == "text.delta" and not first:
                        first = time.perf_counter() - began
                elif last == "text.delta":
                    pieces += line.count(PIECE)
            if answer.status_code == 200 and last != "run.completed":
                answer.failure(f"ended with {last or 'nothing'}")
            answer.request_meta["response_time"] = (time.perf_counter() - began) * 1000
        if first:
            self._entry("stream: first text", first, pieces)

    @tag("task")
    @task(SHARES["task"])
    def background(self) -> None:
        """Start a task and poll until it is done; the whole is an entry of its own."""
        began = time.perf_counter()
        body = {"input": self._new(self.wish)}
        with self._post("/v1/agents/assistant/tasks", body, "task", status=202) as answer:
            run = answer.json().get("run_id") if answer.status_code == 202 else None
        if run and self._polled(run, "task"):
            self._entry("task: until done", time.perf_counter() - began)

    @tag("approval")
    @task(SHARES["approval"])
    def approval(self) -> None:
        """Ask what needs an approval, approve it as the admin, and poll until the run is done."""
        result = self._run("notary", "approval", self._new(self.wish), {"waiting_approval"})
        for approval in result.get("approvals", ()):
            with self._post(
                f"/v1/approvals/{approval}", {"decision": "approve"}, "approval: decide", headers=self.admin
            ):
                pass
        if result.get("approvals"):
            self._polled(result["run_id"], "approval")

    @tag("usage")
    @task(SHARES["usage"])
    def usage(self) -> None:
        for path in ("/v1/usage?group_by=day", "/v1/budget", "/v1/runs?limit=20"):
            self.client.get(path, headers=self.headers, name=f"usage: {path.partition('?')[0]}")

    @tag("sign_in")
    @task(SHARES["sign_in"])
    def sign_in(self) -> None:
        self.headers = log_in(self.client, self.name, self.password)

    # --- parts ----------------------------------------------------------------------------------------------

    def _new(self, wish: Wish) -> str:
        """Return a question nobody has asked."""
        return prompt(wish, uuid4().int % 10**15)

    def _post(self, path: str, body: Any, name: str, status: int = 200, **more: Any) -> Any:
        """Post as the person; another status is a failure, whose code is told."""
        more = {"headers": self.headers, **more}
        return _Checked(self.client.post(path, json=body, name=name, catch_response=True, **more), status)

    def _run(self, agent: str, name: str, text: str, statuses: set[str]) -> dict[str, Any]:
        with self._post(f"/v1/agents/{agent}/invoke", {"input": text}, name) as answer:
            result: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
            if result and result["status"] not in statuses:
                answer.failure(f"status {result['status']}")
        return result

    def _polled(self, run: str, name: str) -> bool:
        """Poll a run until it has succeeded; another end, or none in time, is a failure."""
        for last in _turns():
            with self.client.get(
                f"/v1/runs/{run}", headers=self.headers, name=f"{name}: poll", catch_response=True
            ) as answer:
                status = answer.json()["status"] if answer.status_code == 200 else str(answer.status_code)
                if status == "succeeded":
                    return True
                if last or status not in ("queued", "running", "waiting_approval"):
                    answer.failure(f"status {status}")
                    return False
        return False

    def _entry(self, name: str, seconds: float, length: int = 0) -> None:
        """Record a time that is no request of its own."""
        self.environment.events.request.fire(
            request_type="TIME",
            name=name,
            response_time=seconds * 1000,
            response_length=length,
            exception=None,
            context={},
        )


class _Checked:
    """Answer whose status is checked when its block begins."""

    def __init__(self, answer: Any, status: int) -> None:
        self._answer, self._status = answer, status

    def __enter__(self) -> Any:
        answer = self._answer.__enter__()
        if answer.status_code != self._status:
            answer.failure(f"{answer.status_code} {answer.text[:200]}")
        return answer

    def __exit__(self, *failure: Any) -> Any:
        return self._answer.__exit__(*failure)


def _one_of(people: list[dict[str, Any]], number: int) -> dict[str, Any]:
    return people[number % len(people)]


def _turns() -> Iterator[bool]:
    """Wait before each poll; true for the last."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        time.sleep(POLL)
        yield time.monotonic() >= ends


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Begin anew where a test is started again from Locust's page."""
    Person.known, Person.taken, Person.done = [], 0, 0
