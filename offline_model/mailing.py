"""Mails: which tool to call next for a request about a mailbox, and the results as sentences.

A request names mails, a message or the inbox. One with a text after a colon answers a mail ("reply to the mail about
the offsite: …") or sends one ("send a mail to ada@harbor.example: …"); any other reads the mail that shares most words
with it, or lists mails where it shares none.
"""

from __future__ import annotations

import re

import orjson

from offline_model.conversation import Conversation, Result
from offline_model.shapes import Json
from offline_model.text import quote, stems

LIST, READ, SEND = "mail__list", "mail__read", "mail__send"
MOST_TOLD = 12  # mails named in a sentence
_ABOUT_MAIL = re.compile(r"\b(?:e-?mails?|mails?|inbox|mailbox|messages?)\b", re.IGNORECASE)
_REPLY = re.compile(r"\b(?:reply|respond|answer)\b", re.IGNORECASE)
_SEND = re.compile(r"\b(?:send|write|mail)\b", re.IGNORECASE)
_MANY = re.compile(
    r"\b(?:list|show|which|any|inbox)\b.*\bmails\b|\bmails\b.*\?|\bin (?:my|the) inbox\b", re.IGNORECASE
)
_TEXT = re.compile(r":\s+(\S.*)", re.DOTALL)
_ADDRESS = re.compile(r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_SUBJECT = re.compile(r"\b(?:subject|about)\s+(?:\"([^\"]+)\"|“([^”]+)”|([^:,]{1,80}))", re.IGNORECASE)
_USUAL = stems(
    "mail mails email message inbox mailbox read open list show reply respond answer new latest sam"
)


def next_call(parsed: Conversation) -> tuple[str, Json] | None:
    """Return the tool to call next and its input; None to answer, or for a request about something else."""
    names = {tool["name"] for tool in parsed.tools}
    question = parsed.question
    if LIST not in names or not _ABOUT_MAIL.search(question) or parsed.results_of(SEND):
        return None
    if any(result.is_error for result in parsed.results):
        return None
    text, address = _TEXT.search(question), _ADDRESS.search(question)
    if text and address and SEND in names and _SEND.search(question) and not _REPLY.search(question):
        return SEND, {"to": address[0], "subject": _subject(question), "text": text[1]}
    if not parsed.results_of(LIST):
        return LIST, {}
    chosen = _chosen(parsed)
    if chosen is None or READ not in names:
        return None
    if not parsed.results_of(READ):
        return READ, {"id": chosen["id"]}
    if text and _REPLY.search(question) and SEND in names:
        return SEND, _reply(_read(parsed.results_of(READ)[-1]), text[1])
    return None


def told(parsed: Conversation) -> str | None:
    """Tell the last result of a mail tool; None without one, or where an answer needs more than that."""
    for name, tell in ((SEND, _sent), (READ, _whole), (LIST, _listed)):
        if results := parsed.results_of(name):
            if results[-1].is_error:
                return f"Nothing was sent: {quote(results[-1].text, 300)}." if name == SEND else None
            return tell(results[-1])
    return None


def _chosen(parsed: Conversation) -> Json | None:
    """Return the listed mail that shares most words with the request; None for many mails, or without a shared word."""
    asked = stems(_TEXT.sub("", parsed.question)) - _USUAL
    mails = _read(parsed.results_of(LIST)[-1]).get("mails")
    if not isinstance(mails, list) or not mails or _MANY.search(parsed.question):
        return None
    shared = [len(asked & stems(f"{mail['subject']} {mail['sender']}")) for mail in mails]
    return dict(mails[shared.index(max(shared))]) if max(shared) else None


def _reply(mail: Json, text: str) -> Json:
    subject = str(mail.get("subject"))
    return {
        "to": mail.get("address"),
        "subject": subject if subject.startswith("Re: ") else f"Re: {subject}",
        "text": text,
        "in_reply_to": mail.get("id"),
    }


def _subject(question: str) -> str:
    found = _SUBJECT.search(question)
    words = next(filter(None, found.groups()), "") if found else ""
    return words.strip().capitalize() or "A message"


def _read(result: Result) -> Json:
    try:
        value = orjson.loads(result.text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _sent(result: Result) -> str:
    mail = _read(result)
    return f"The mail {quote(str(mail.get('subject')))} was sent to {mail.get('to')}."


def _whole(result: Result) -> str:
    mail = _read(result)
    return (
        f"{_from(mail)} wrote, about {quote(str(mail.get('subject')))}: {quote(str(mail.get('text')), 1000)}"
    )


def _from(mail: Json) -> str:
    return f"{mail.get('sender')} ({mail.get('address')})"


def _listed(result: Result) -> str | None:
    mails = _read(result).get("mails")
    if not isinstance(mails, list):
        return None
    if not mails:
        return "There is no such mail."
    shown = "; ".join(f"{quote(mail['subject'])} from {_from(mail)}" for mail in mails[:MOST_TOLD])
    return f"{len(mails)} mails: {shown}."
