from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from service.observe import logs

log = logging.getLogger("slipway.test")


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Any:
    """Configure for JSON; then what the last line says."""
    root = logging.getLogger()
    before = root.handlers, root.level
    logs.configure("json", "INFO")
    logs.clear()

    def last() -> Any:
        return json.loads(capsys.readouterr().err.splitlines()[-1])

    yield last
    logs.clear()
    root.handlers, root.level = before
    for name in logs.OWN:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_line_has_the_fields_of_every_line(line: Any) -> None:
    logs.bind(request_id="r1", user="usr_1")
    log.info("request", extra={"status": 200, "ms": 1.5})
    said = line()
    assert said.pop("time")[10] == "T"
    assert said == {
        "level": "INFO",
        "event": "request",
        "logger": "slipway.test",
        "request_id": "r1",
        "user": "usr_1",
        "status": 200,
        "ms": 1.5,
    }


def test_the_time_is_rfc3339_in_milliseconds(line: Any) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "m", (), None)
    record.created, record.msecs = 1795245245.0, 7.9
    assert json.loads(logs.JsonFormatter().format(record))["time"] == "2026-11-21T07:14:05.007Z"


def test_bound_fields_end_with_their_block(line: Any) -> None:
    logs.bind(user="usr_1")
    with logs.bound(run="run_1", user="usr_2"):
        log.info("a")
        assert {"run": "run_1", "user": "usr_2"}.items() <= line().items()
    log.info("b")
    said = line()
    assert said["user"] == "usr_1" and "run" not in said


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (f"got Bearer {JWT}", {}),
        ("key slp_0123456789abcdef here", {}),
        ("plain", {"note": "sk-ant-api03-secret-thing"}),
        ("plain", {"Authorization": "Basic hidden-word"}),
        ("plain", {"password": "hidden-word"}),
        ("plain", {"headers": {"x-api-key": "hidden-word", "deep": {"token": "hidden-word"}}}),
    ],
)
def test_secrets_never_leave(line: Any, message: str, fields: dict[str, Any]) -> None:
    log.info(message, extra=fields)
    said = json.dumps(line())
    for secret in (JWT, "slp_0123", "sk-ant", "hidden-word"):
        assert secret not in said


def test_a_secret_in_a_traceback_does_not_leave(line: Any) -> None:
    try:
        raise ValueError(f"bad {JWT}")
    except ValueError:
        log.exception("failed")
    said = line()
    assert "ValueError" in said["exc_info"] and JWT not in said["exc_info"]


def test_a_message_with_arguments_and_odd_values(line: Any) -> None:
    log.warning("took %d", 3, extra={"what": object(), "when": {1, 2}, "bytes": b"x"})
    assert line()["event"] == "took 3"


@pytest.mark.parametrize("value", ["\ud800", 10**30, {"deep": ["\udfff", 2**64]}])
def test_no_value_loses_its_line(line: Any, value: Any) -> None:
    log.warning("odd", extra={"value": value, "key": "sk-ant-" + "0123456789"})
    said = line()
    assert said["event"] == "odd" and "\ud800" not in str(said["value"]) and "sk-ant" not in str(said)


def test_secrets_in_lists_do_not_leave(line: Any) -> None:
    log.info("sent", extra={"rows": [{"token": "hidden-word", "id": 1}, [{"Password": "hidden-word"}]]})
    assert line()["rows"] == [{"id": 1}, [{}]]


def test_gunicorn_speaks_the_same_language() -> None:
    code = (
        "import logging; from service.observe import logs; logs.configure('json', 'INFO');"
        "logging.getLogger('gunicorn.error').info('Booting worker %d', 7);"
        "logging.getLogger('gunicorn.access').info('not this')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    (only,) = done.stderr.splitlines()
    assert json.loads(only)["event"] == "Booting worker 7"


@pytest.mark.parametrize(
    "name", ["anthropic._base_client", "httpcore2.http11", "sqlalchemy.engine", "made_up"]
)
def test_libraries_log_no_debug_lines(line: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Drop their debug lines at any level of their loggers."""
    logs.configure("json", "DEBUG")
    theirs = logging.getLogger(name)
    assert not theirs.isEnabledFor(logging.DEBUG)
    theirs.setLevel(logging.DEBUG)
    theirs.debug("Request options: %s", {"content": "a prompt"})
    assert capsys.readouterr().err == ""
    theirs.error("broke")
    assert line()["event"] == "broke"
    theirs.setLevel(logging.NOTSET)


@pytest.mark.parametrize("name", ["slipway.test", "agent_tools.clerk"])
def test_own_loggers_log_at_debug(line: Any, name: str) -> None:
    logs.configure("json", "DEBUG")
    logging.getLogger(name).debug("step")
    assert {"level": "DEBUG", "event": "step"}.items() <= line().items()


def test_text_is_for_people() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "slow %s", ("thing",), None)
    record.__dict__["ms"] = 3
    text = logs.TextFormatter().format(record)
    assert text.endswith("slow thing ms=3") and "WARNING" in text and "\n" not in text


def test_text_of_others_is_one_line_without_terminal_escapes() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "no\nyes", (), None)
    record.__dict__["server"] = "a\n12:00:00 INFO  forged \x1b[2J\u202e é"
    text = logs.TextFormatter().format(record)
    assert text.endswith(r"no\nyes server=a\n12:00:00 INFO  forged \x1b[2J\u202e é")


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_line_of_a_request_is_written_whatever_the_level(level: str) -> None:
    script = (
        f"import logging; from service.observe import logs; logs.configure('json', '{level}');"
        "logging.getLogger('slipway.request').info('request', extra={'status': 200});"
        "logging.getLogger('slipway.jobs').info('upkeep')"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30).stderr
    events = [json.loads(text)["event"] for text in said.splitlines()]
    assert events == (["request", "upkeep"] if level in ("DEBUG", "INFO") else ["request"])


def test_debug_level_excludes_libraries() -> None:
    script = (
        "import logging; from service.observe import logs; logs.configure('json', 'DEBUG')\n"
        "for name in ('anthropic', 'httpx2', 'celery'): logging.getLogger(name).debug('a prompt')\n"
        "logging.getLogger('slipway.test').debug('ours')"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30).stderr
    assert [json.loads(text)["event"] for text in said.splitlines()] == ["ours"]


def test_warnings_of_the_database_driver_which_name_the_server_are_not_written() -> None:
    script = (
        "import logging; from service.observe import logs; logs.configure('json', 'INFO')\n"
        "driver = logging.getLogger('psycopg')\n"
        "driver.warning('error ignored terminating %s', '<Pipeline [BAD] host=db.internal user=app>')\n"
        "driver.error('ours to see')"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30).stderr
    assert [json.loads(text)["event"] for text in said.splitlines()] == ["ours to see"]
