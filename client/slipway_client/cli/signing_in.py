"""`slipway login` and `slipway logout`."""

from __future__ import annotations

import argparse
import getpass
import sys
from dataclasses import asdict

from slipway_client.cli.config import LoginFile, base_url
from slipway_client.cli.console import answered, line, person
from slipway_client.client import Slipway
from slipway_client.credentials import Login
from slipway_client.errors import APIError, ConnectionFailed, SlipwayError


def login(options: argparse.Namespace) -> int:
    """Check what was given against the server, then keep it: a key, or tokens, never a password."""
    url = base_url(options.url)
    if options.api_key:
        key = secret("API key: ")
        with Slipway(key, base_url=url) as client:
            me = client.account.me()
        LoginFile().write({"base_url": url, "api_key": key})
    else:
        username = options.username or asked("User name: ")
        taken = Login(username, secret("Password: "), options.workspace)
        with Slipway(login=taken, base_url=url) as client:
            me = client.account.me()
        pair = taken.tokens
        assert pair is not None
        LoginFile().write({"base_url": url, "tokens": asdict(pair)})
    line(f"Signed in to {url} as {me.username} ({me.role}); kept in {LoginFile().path}")
    return 0


def logout(options: argparse.Namespace) -> int:
    """End the log-in on the server, then forget it; a key is only forgotten."""
    file = LoginFile()
    kept = file.read()
    if "tokens" in kept:
        try:
            with Slipway(login=Login.stored(file), base_url=kept["base_url"]) as client:
                client.account.logout()
        except APIError:
            pass  # it had ended
        except ConnectionFailed:
            line("The server was not reached: the log-in is forgotten here, and ends there by itself.")
    file.remove()
    return 0


def secret(prompt: str) -> str:
    """Read a password or key: hidden at the terminal, else the first line of stdin. Never an argument."""
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    return sys.stdin.readline().rstrip("\n")


def asked(prompt: str) -> str:
    if not person():
        raise SlipwayError("Nobody can be asked here: add `--username`.")
    return (answered(prompt) or "").strip()
