"""Bodies made to cost more than their size: validation is bounded in bytes of memory."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from pathlib import Path

import httpx2
import orjson
import pytest

from service.errors import SlipwayError
from service.web.body import MAX_BODY, PUBLIC_BODY
from service.web.current import Application
from service.web.doors.native import TaskBody
from service.web.problems import problem_body
from service.web.validation import parse
from tests.conftest import Slipway

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}
MAX_MEMORY = 24 * MIB  # the parser's own buffer takes 12 bytes for each byte of a body
MAX_ANSWER = 32 * 1024
small = Application("small")


def filled(begin: bytes, item: bytes, end: bytes) -> bytes:
    """As many of an item as a body has room for."""
    count = (MAX_BODY - len(begin) - len(end)) // (len(item) + 1)
    return begin + b",".join([item] * count) + end


def members(count: int, more: bytes = b"") -> bytes:
    return b",".join(b'"%x%b":1' % (number, more) for number in range(count))


LISTS = b",".join([b"[]"] * 20_000)
BLOCKS = b",".join([b'{"a":1}'] * 30)
TURNS = b",".join([b'{"role":1,"content":[{"a":1,"b":2}]}'] * 499)
BODIES: dict[str, bytes] = {
    "a long name over many lists": b'{"%b":[%b]}' % (b"k" * 60_000, LISTS),
    "a longer name over fewer lists": b'{"%b":[%b]}' % (b"k" * 900_000, LISTS[:45_002]),
    "empty lists": filled(b'{"context":{"a":[', b"[]", b"]}}"),
    "empty objects": filled(b'{"context":{"a":[', b"{}", b"]}}"),
    "noughts": filled(b"[", b"0", b"]"),
    "decimals": filled(b'{"context":{"a":[', b"1.1", b"]}}"),
    "decimals of the allowed number": b'{"input":"x","context":{"a":[%b]}}' % b",".join([b"1.10"] * 19_000),
    "open lists": b"[" * MAX_BODY,
    "open objects": b'{"a":' * (MAX_BODY // 5),
    "open objects of the allowed number": b'{"context":' * 19_000,
    "empty texts": filled(b"[", b'""', b"]"),
    "quotes": b'"' * MAX_BODY,
    "one name again and again": filled(b"{", b'"a":1', b"}"),
    "many names": b"{%b}" % members(100_000),
    "unknown fields": b"{%b}" % members(999),
    "unknown fields of a turn": b'{"messages":[{%b}]}' % members(999),
    "turns that are none": b'{"messages":[%b]}' % TURNS,
    "blocks that are none": b'{"messages":[%b]}'
    % b",".join([b'{"role":"user","content":[%b]}' % BLOCKS] * 300),
    "long unknown names": b"{%b}" % members(50, b"k" * 20_000),
    "one long unknown name": b'{"%b":1}' % (b"k" * (MAX_BODY - 10)),
    "long names over a NUL": b'{"context":{"%b":{"%b":"\\u0000"}}}' % (b"k" * 500_000, b"j" * 500_000),
    "digits": b'{"max_tokens":%b}' % (b"9" * (MAX_BODY - 20)),
    "digits in the context": b'{"input":"x","context":{"a":%b}}' % (b"9" * (MAX_BODY - 100)),
    "backslashes": b'{"input":"%b"}' % (b"\\\\" * 500_000),
    "control characters": b'{"input":"%b"}' % (b"\\u0001" * 170_000),
    "spaces of no width": b'{"input":"%b"}' % ("\u200b".encode() * 300_000),
    "metadata": b'{"input":"x","metadata":{"a":"%b"}}' % (b"x" * 1_000_000),
    "commas in a text": b'{"input":"%b"}' % (b"a, b, c\\n" * 100_000),
}


def problem_of(body: bytes) -> tuple[bytes | None, int]:
    """The answer to a body, if it is refused, and the most bytes that took."""
    answer = None
    with small.test_request_context("/", method="POST", data=body, content_type="application/json"):
        tracemalloc.start()
        try:
            parse(TaskBody)
        except SlipwayError as error:
            assert 400 <= error.status < 500
            answer = orjson.dumps(problem_body(error))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return answer, peak


@pytest.mark.parametrize("name", BODIES)
def test_a_body_costs_a_few_times_its_size(name: str) -> None:
    body = BODIES[name]
    assert len(body) <= MAX_BODY
    answer, peak = problem_of(body)
    assert peak < MAX_MEMORY
    assert (answer is None) == (name == "decimals of the allowed number")
    assert answer is None or len(answer) < MAX_ANSWER


def resident(pid: int) -> int:
    """The most bytes of memory that a process has ever had."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def test_the_workers_stay_small(slipway: Slipway, client: httpx2.Client) -> None:
    before = {pid: resident(pid) for pid in slipway.workers()}
    for body in BODIES.values():
        answer = client.post("/v1/agents/assistant/invoke", content=body, headers=JSON)
        assert answer.status_code in (200, 400, 422)
    after = {pid: resident(pid) for pid in slipway.workers()}
    assert after.keys() == before.keys()
    assert all(after[pid] - before[pid] < 100 * MIB for pid in after)


def test_body_of_an_anonymous_request_is_not_read(slipway: Slipway) -> None:
    with closing(slipway.visitor()) as visitor:
        for body in (*BODIES.values(), b"not JSON"):
            answer = visitor.post("/v1/agents/assistant/invoke", content=body, headers=JSON)
            assert answer.status_code == 401


def test_a_log_in_has_a_small_body(slipway: Slipway) -> None:
    with closing(slipway.visitor()) as visitor:
        for size in (PUBLIC_BODY + 1, 1_000_000):
            body = b'{"username":"%b"}' % (b"x" * (size - 15))
            assert visitor.post("/v1/auth/login", content=body, headers=JSON).status_code == 413
            pieces = iter([body[:1_000], body[1_000:]])
            assert visitor.post("/v1/auth/login", content=pieces, headers=JSON).status_code == 413
        most = {"username": "😀" * 128, "password": "😀" * 1024}
        assert visitor.post("/v1/auth/login", json=most).status_code == 401


@pytest.mark.parametrize("text", ["", " ", "\n\t\r ", "\u00a0\u2003\u3000", "\u2028\u2029", "\u200b\ufeff"])
def test_a_question_of_white_space(client: httpx2.Client, text: str) -> None:
    asked = {
        "/input": {"input": text},
        "/messages/0/content": {"messages": [{"role": "user", "content": text}]},
        "/messages/1/content": {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": text},
                {"role": "user", "content": "x"},
            ]
        },
        "/messages/0/content/0/text": {
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]
        },
    }
    for pointer, body in asked.items():
        answer = client.post("/v1/agents/assistant/invoke", json=body)
        assert answer.status_code == 422, answer.text
        assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


@pytest.mark.parametrize("roles", [("assistant", "user"), ("user", "assistant"), ("assistant",)])
def test_a_conversation_begins_and_ends_with_the_user(client: httpx2.Client, roles: tuple[str, ...]) -> None:
    body = {"messages": [{"role": role, "content": "Hello"} for role in roles]}
    answer = client.post("/v1/agents/assistant/invoke", json=body)
    assert answer.status_code == 422, answer.text
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert pointers == {f"/messages/{roles.index('assistant')}/role"}


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff x", "\\u0000", "a\\u0000b"])
def test_text_that_no_database_keeps(client: httpx2.Client, text: str) -> None:
    """In a value and in a name, of every field that is kept."""
    for path, field in (
        ("/v1/agents/assistant/invoke", '"input":"%s"'),
        ("/v1/agents/assistant/invoke", '"messages":[{"role":"user","content":"%s"}]'),
        ("/v1/agents/assistant/invoke", '"input":"x","metadata":{"a":["%s"]}'),
        ("/v1/agents/assistant/invoke", '"input":"x","metadata":{"%s":1}'),
        ("/v1/agents/assistant/invoke", '"input":"x","context":{"a":{"%s":1.10}}'),
        ("/v1/agents/assistant/tasks", '"input":"x","callback_url":"https://example.com/%s"'),
        ("/v1/sessions", '"agent":"assistant","title":"%s"'),
        ("/v1/sessions", '"agent":"assistant","metadata":{"a":"%s"}'),
        ("/v1/auth/keys", '"name":"%s"'),
        ("/v1/admin/users", '"username":"%s","password":"a-password-of-some-length"'),
        ("/v1/admin/users", '"username":"x","password":"a-password-of-some-length%s"'),
        ("/v1/approvals/apr_" + "0" * 26, '"decision":"approve","comment":"%s"'),
        ("/v1/approvals/apr_" + "0" * 26, '"decision":"approve","arguments":{"a":"%s"}'),
        ("/v1/approvals/apr_" + "0" * 26, '"decision":"approve","arguments":{"%s":1}'),
    ):
        body = "{" + field % text + "}"
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code == (400 if "\\ud" in text else 422), f"{body}: {answer.text}"


@pytest.mark.parametrize(
    "number", ["1e400", "123456789012345678901234567890", "-9223372036854775809", "1e30", "1.10", "9" * 2_000]
)
def test_numbers_out_of_range(client: httpx2.Client, number: str) -> None:
    body = f'{{"input":"x","max_tokens":{number}}}'
    answer = client.post("/v1/agents/assistant/invoke", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/max_tokens"]
    if number in ("1e30", "1.10"):  # which a tool may well be given
        return
    body = f'{{"decision":"approve","arguments":{{"a":[{number}]}}}}'
    answer = client.post(f"/v1/approvals/apr_{'0' * 26}", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith("/arguments")
