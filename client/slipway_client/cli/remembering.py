"""`slipway memory`: list, show, write and delete notes of agents about the caller."""

from __future__ import annotations

import argparse

from slipway_client.cli.console import as_json, line, shown, table
from slipway_client.client import Slipway
from slipway_client.kept_resources import About


def list_notes(client: Slipway, options: argparse.Namespace) -> int:
    found = list(client.memory.list(**_about(options)))
    if options.json:
        as_json(found)
        return 0
    rows = [
        (each.key, each.agent or "you", ", ".join(each.untrusted) or "no", shown(each.updated_at))
        for each in found
    ]
    table(rows, "KEY", "BY", "UNTRUSTED", "CHANGED", empty="No notes.")
    return 0


def show_note(client: Slipway, options: argparse.Namespace) -> int:
    note = client.memory.get(options.key, **_about(options))
    if options.json:
        as_json(note)
    else:
        line(note.text)
    return 0


def set_note(client: Slipway, options: argparse.Namespace) -> int:
    note = client.memory.set(options.key, " ".join(options.text), **_about(options))
    if options.json:
        as_json(note)
    else:
        line(f"{note.key}: noted")
    return 0


def delete_note(client: Slipway, options: argparse.Namespace) -> int:
    client.memory.delete(options.key, **_about(options))
    if not options.json:
        line(f"{options.key}: deleted")
    return 0


def _about(options: argparse.Namespace) -> About:
    about: About = {}
    if options.end_user is not None:
        about["end_user"] = options.end_user
    if options.key_id is not None:
        about["key_id"] = options.key_id
    return about
