"""Extraction: best sentences for a question, summaries, facts from earlier turns, classification."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from offline_model import text as wording
from offline_model.conversation import Conversation, Source
from offline_model.text import Sentence, stems

MIN_COVERAGE = 0.34  # share of the question's weight that a quotable sentence must cover
MIN_SCORE_SHARE = 0.75  # of the best score, to be quoted beside it
MAX_QUOTES = 3
FALLBACK_CHOICES = ("other", "general", "unknown", "none", "unclear", "default")
_LIST_LINE = re.compile(  # [ \t] and not \s: over blank lines that would take a time that is their square
    r"^[ \t]*(?:[-*•]|\d+[.)])?[ \t]*[`\"'*]*([\w /-]{1,60}?)[`\"'*]*[ \t]*(?::|=|—|–| - )[ \t]*(\S.*)$",
    re.MULTILINE,
)
_ONE_OF = re.compile(
    r"(?:exactly one|only one|just one|one|a single)\s*(?:word|label|category|value)?\s*(?:of|from|:)"
    r"(?:\s+(?:the following|these))?(?:\s+(?:words|labels|categories|values|options))?\s*:?\s*"
    r"(.+?)(?:\.(?:\s|$)|\n\n|\Z)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Quote:
    """Sentence with its source and score."""

    source: Source
    sentence: Sentence
    score: float


def best(question: str, sources: Iterable[Source]) -> list[Quote]:
    """Find up to three sentences that fit the question, best first; none below `MIN_COVERAGE`.

    Without any, the first sentence that shares a word with the question and with the title of its source.
    """
    wanted = stems(question)
    rows = [(s, sentence) for s in sources for sentence in wording.sentences(s.text)]
    if not wanted or not rows:
        return []
    weight = wording.weights(wanted, [sentence.stems for _, sentence in rows])
    total = sum(weight.values())
    quotes = []
    for source, sentence in rows:
        around = (sentence.around | stems(source.title)) - sentence.stems
        # A number is a name (an error, a version): below its heading a sentence need not repeat it.
        stems_found = sentence.stems | {word for word in around if any(map(str.isdigit, word))}
        inside = sum(weight[w] for w in wanted & stems_found)
        score = inside + 0.5 * sum(weight[w] for w in wanted & around - stems_found)
        if score >= MIN_COVERAGE * total:
            # A long sentence covers more by chance; 0.01 a word is enough to prefer the short of two equals.
            quotes.append(Quote(source, sentence, score - 0.01 * len(sentence.stems)))
    if not quotes:
        titled = (row for row in rows if wanted & stems(row[0].title) & row[1].stems)
        return [Quote(*row, 0.0) for row in itertools.islice(titled, 1)]
    quotes.sort(key=lambda q: -q.score)
    chosen: list[Quote] = []
    for quote in quotes:
        if quote.score < MIN_SCORE_SHARE * quotes[0].score or len(chosen) == MAX_QUOTES:
            break
        if all(quote.sentence.plain != other.sentence.plain for other in chosen):
            chosen.append(quote)
    return chosen


def summary(material: Iterable[str], most: int = 3) -> list[str]:
    """Summarise by the sentences with the most frequent words, in document order."""
    rows = [sentence for text in material for sentence in wording.sentences(text)]
    often = Counter(s for row in rows for s in row.stems)
    scored = [(sum(often[s] for s in row.stems) / (len(row.stems) + 3), -i) for i, row in enumerate(rows)]
    return [rows[-i].plain for _, i in sorted(sorted(scored, reverse=True)[:most], key=lambda pair: -pair[1])]


def remembered(parsed: Conversation) -> str | None:
    """Answer `what is my name`, `what did I say`, `what is my …` from earlier user turns."""
    turns = [text for role, text in parsed.earlier if role == "user"]
    asked = parsed.question.lower()
    if re.search(
        r"\b(what(?:'s| is| was)?|who|remember|recall|know|tell)\b.*\b(my name|who am i|who i am|i called)\b",
        asked,
    ):
        for text in reversed(turns):
            name = re.search(
                r"\b(?:[Mm]y name is|I am called|[Cc]all me|I am|I'm)\s+([A-Z][\w'-]*(?:\s[A-Z][\w'-]*)*)",
                text,
            )
            if name:
                return f"Your name is {name[1]}: you said {wording.quote(text, 200)}."
        return "You have not told me your name in this conversation."
    if re.search(r"\bwhat (?:did|have) i\b.*\b(say|said|ask|asked|tell|told|write|wrote)\b", asked):
        if not turns:
            return "This is the first thing you have said in this conversation."
        return f"You said {wording.quote(turns[0] if 'first' in asked else turns[-1])}."
    if turns and re.search(r"\b(my|i|me|mine|earlier|before|remember)\b", asked):
        quotes = best(
            parsed.question, [Source("said", "", text) for text in turns if not text.rstrip().endswith("?")]
        )
        if quotes:
            return f"Earlier you said {wording.quote(quotes[0].sentence.plain)}."
    return None


def choices_asked_for(system: str) -> list[str]:
    """Parse the choices of `answer with exactly one of: a, b or c`; [] if there is no such request."""
    match = (
        _ONE_OF.search(system)
        if re.search(r"\b(answer|reply|respond|return|output|classify|choose|pick)\b", system, re.IGNORECASE)
        else None
    )
    if not match:
        return []
    if re.match(r"\s*[-*•\d]", match[1]) or "\n" in match[1]:
        lines = re.findall(
            r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]*[`\"'*]*([\w-]+)", system[match.start(1) :], re.MULTILINE
        )
        return lines if len(lines) > 1 else []
    words = [w.strip(" `\"'*.") for w in re.split(r",|\s+or\s+|\s+and\s+|\||/", match[1])]
    words = [re.sub(r"^(?:or|and)\s+", "", w).strip("`\"'") for w in words]
    return [w for w in words if w] if len(words) > 1 and all(len(w.split()) <= 3 for w in words) else []


def choose(question: str, values: list[str], *described_in: str) -> str:
    """Choose the value that shares most words with the question, including the texts' descriptions of it."""
    described: dict[str, str] = {}
    for text in described_in:
        for name, meaning in _LIST_LINE.findall(text):
            described[name.strip().lower()] = described.get(name.strip().lower(), "") + " " + meaning
    asked = stems(question)
    scores = []
    for value in values:
        meaning = described.get(value.lower(), "") or described.get(value.lower().replace("_", " "), "")
        scores.append(2 * wording.overlap(stems(value), asked) + wording.overlap(stems(meaning), asked))
    if max(scores, default=0) == 0:
        spare = [v for v in values if v.lower() in FALLBACK_CHOICES]
        return (spare or values)[0]
    return values[scores.index(max(scores))]
