"""`.env` parsing, precedence and faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import env_file


def read(path: Path, text: str | bytes, **environ: str) -> dict[str, str]:
    """Return the variables that a file adds to `environ`; asserts that there are no faults."""
    faults: dict[str, str] = {}
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = env_file.merge(environ, faults, path)
    assert faults == {}
    return found


@pytest.mark.parametrize(
    "line",
    [
        "PORT=9000",
        "PORT = 9000",
        "  export PORT=9000  ",
        "PORT='9000'",
        'PORT="9000"   # the port',
        "# PORT=1\n\nPORT=9000",
        "PORT=1\nPORT=9000",
        "\ufeffPORT=9000",
        "PORT=9000\r\nHOST=127.0.0.1\r\n",
    ],
)
def test_common_env_file_syntax_is_parsed(tmp_path: Path, line: str) -> None:
    assert read(tmp_path / ".env", line)["PORT"] == "9000"


def test_multiline_value_needs_quotes(tmp_path: Path) -> None:
    assert read(tmp_path / ".env", 'JWT_PRIVATE_KEY="one\ntwo"\nPORT=1') == {
        "JWT_PRIVATE_KEY": "one\ntwo",
        "PORT": "1",
    }


def test_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    text = "PORT=9000\nSECRET_KEY=from-the-file\nBUDGET_RUN_USD=5"
    environ = {"PORT": "8000", "SECRET_KEY_FILE": "/run/secrets/key", "BUDGET_RUN_USD": ""}
    assert read(tmp_path / ".env", text, **environ) == environ
    assert read(tmp_path / ".env", "PORT_FILE=/a", PORT="8000") == {"PORT": "8000"}


def test_missing_env_file_is_accepted(tmp_path: Path) -> None:
    faults: dict[str, str] = {}
    assert env_file.merge({"PORT": "1"}, faults, tmp_path / ".env") == {"PORT": "1"} and not faults


def test_env_file_is_skipped_with_flask_skip_dotenv(tmp_path: Path) -> None:
    environ = {"FLASK_SKIP_DOTENV": "1"}
    assert read(tmp_path / ".env", "PORT=9000", **environ) == environ
    assert read(tmp_path / ".env", "PORT=9000", FLASK_SKIP_DOTENV="false")["PORT"] == "9000"


@pytest.mark.parametrize(
    ("text", "fault", "good"),
    [
        (
            b"PORT=9000\nHOST 127.0.0.1\nTHREADS=8\n",
            {".env:2": "is not NAME=value"},
            {"PORT": "9000", "THREADS": "8"},
        ),
        (b"\n\nPORT\n", {".env:3": "is not NAME=value"}, {}),
        (b'PORT="9000\n', {".env:1": "is not NAME=value"}, {}),
        (b"NAME=\xff\n", {".env": "cannot be read: is not UTF-8"}, {}),
    ],
)
def test_invalid_line_is_reported_without_its_content(
    tmp_path: Path, text: bytes, fault: dict[str, str], good: dict[str, str]
) -> None:
    (tmp_path / ".env").write_bytes(text)
    faults: dict[str, str] = {}
    found = env_file.merge({}, faults, tmp_path / ".env")
    assert faults == fault and found == good
