"""Mail server: a mailbox to list and read, and an outbox. Nothing leaves the machine."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from mcp_servers.mailbox import MAILS, OWNER
from mcp_servers.server import Arguments, Tool
from mcp_servers.store import Refused, Store

MOST_SENT = 10_000
_ID = {"type": "string", "pattern": "^mail_[a-z0-9]{1,40}$"}
_ADDRESS = {"type": "string", "maxLength": 254, "pattern": "^[^@\\s<>,;]{1,64}@[^@\\s<>,;]+\\.[^@\\s<>,;]+$"}
_LINE = "^[^\\r\\n]*$"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS mails "
    "(id TEXT PRIMARY KEY, received TEXT NOT NULL, sender TEXT NOT NULL, address TEXT NOT NULL, subject TEXT NOT NULL, "
    "text TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS outbox (id TEXT PRIMARY KEY, sent TEXT NOT NULL, recipient TEXT NOT NULL, "
    "subject TEXT NOT NULL, text TEXT NOT NULL, in_reply_to TEXT)",
)


def tools(folder: Path) -> list[Tool]:
    """Return the tools over `mail.db` in a folder, which is made with a few mails if it is not there."""
    mailbox = _Mailbox(Store(folder / "mail.db", _TABLES, _seed))
    return [
        Tool(
            "list",
            "List mails of the inbox, newest first: id, time, sender, address and subject of each, without its text.",
            {
                "query": {
                    "type": "string",
                    "maxLength": 200,
                    "description": "Words that must all be in the sender, the address, the subject or the text",
                },
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 50,
                    "description": "Most mails to list, 20 if left out",
                },
            },
            (),
            mailbox.list,
        ),
        Tool("read", "Read one mail of the inbox, with its text.", {"id": _ID}, ("id",), mailbox.read),
        Tool(
            "send",
            "Send a mail from the mailbox's owner. A person approves it first.",
            {
                "to": {**_ADDRESS, "description": "Address of the one recipient"},
                "subject": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": _LINE},
                "text": {"type": "string", "minLength": 1, "maxLength": 10_000},
                "in_reply_to": {**_ID, "description": "Id of the mail that this one answers"},
            },
            ("to", "subject", "text"),
            mailbox.send,
        ),
    ]


class _Mailbox:
    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, arguments: Arguments, key: str) -> dict[str, Any]:
        rows = self._store.rows("SELECT * FROM mails ORDER BY received DESC, id")
        words = arguments.get("query", "").lower().split()
        found = [row for row in rows if all(word in _text_of(row) for word in words)]
        shown = found[: arguments.get("limit", 20)]
        names = ("id", "received", "sender", "address", "subject")
        return {"mails": [{name: row[name] for name in names} for row in shown], "found": len(found)}

    def read(self, arguments: Arguments, key: str) -> dict[str, Any]:
        row = self._row(arguments["id"])
        return {
            "id": row["id"],
            "to": OWNER,
            **{name: row[name] for name in ("received", "sender", "address", "subject", "text")},
        }

    def send(self, arguments: Arguments, key: str) -> dict[str, Any]:
        answered = arguments.get("in_reply_to")
        if answered is not None:
            self._row(answered)

        def change(db: sqlite3.Connection) -> dict[str, Any]:
            if db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0] >= MOST_SENT:
                raise Refused(f"The outbox is full: it holds {MOST_SENT:,} mails.")
            mail = {"id": f"sent_{uuid4().hex}", "sent": _now().isoformat(), "to": arguments["to"]}
            values = (*mail.values(), arguments["subject"], arguments["text"], answered)
            db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?)", values)
            return {**mail, "subject": arguments["subject"]}

        return self._store.once(key, "send", arguments, change)

    def _row(self, mail: str) -> sqlite3.Row:
        rows = self._store.rows("SELECT * FROM mails WHERE id = ?", (mail,))
        if not rows:
            raise Refused(f"There is no mail {mail}: list them for their ids.")
        return rows[0]


def _text_of(row: sqlite3.Row) -> str:
    return f"{row['sender']}\n{row['address']}\n{row['subject']}\n{row['text']}".lower()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _seed(db: sqlite3.Connection) -> None:
    now = _now()
    rows = [
        (
            mail.id,
            (now - timedelta(hours=mail.hours)).isoformat(),
            mail.sender,
            mail.address,
            mail.subject,
            mail.text,
        )
        for mail in MAILS
    ]
    db.executemany("INSERT INTO mails VALUES (?, ?, ?, ?, ?, ?)", rows)
