"""Notes on tool calls, for a long run whose calls no longer fit its prompt."""

from __future__ import annotations

import re
from collections import Counter

from offline_model import calls, extract
from offline_model.conversation import COUNTED, Conversation, Source, counts

_ASKED = re.compile(r"\AYou keep notes on the tool calls\b")
_REWRITE = re.compile(r"^Rewrite the notes\b", re.MULTILINE)
_CALL = re.compile(r"^Call ([\w-]+): ", re.MULTILINE)
_PIECE = re.compile(r"^(?=(?:Call [\w-]+|Result|Error|Assistant): )", re.MULTILINE)
_RESULT = "Result: "
MAX_FACT = 300  # characters of one sentence


def asked_for(parsed: Conversation) -> bool:
    return _ASKED.match(parsed.system) is not None


def write(parsed: Conversation) -> str:
    """Write how often each tool was called, and the sentences that fit the question best.

    The lines of the earlier notes are repeated only where these are to be rewritten.
    """
    given = "\n".join(source.text for source in parsed.sources)
    work, notes = _inside("conversation", given), _inside("notes", given)
    rewrite = _REWRITE.search(given) is not None
    made = Counter(_CALL.findall(work)) + Counter(counts(notes) if rewrite else {})
    lines = [f"Calls of {name}: {count}" for name, count in sorted(made.items())]
    if rewrite:
        lines += [line for line in notes.splitlines() if line and not COUNTED.match(line)]
    results = [piece.removeprefix(_RESULT) for piece in _PIECE.split(work) if piece.startswith(_RESULT)]
    found = extract.best(
        calls.without_calls(parsed.question, made), [Source("said", "", text) for text in results]
    )
    lines += [" ".join(quote.sentence.plain.split())[:MAX_FACT] for quote in found]
    return "\n".join(dict.fromkeys(lines)) or "Nothing worth a note."


def _inside(tag: str, text: str) -> str:
    _, _, rest = text.partition(f"<{tag}>")
    return rest.partition(f"</{tag}>")[0].strip()
