"""Arithmetic: find an expression in a question, and evaluate it."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?|[-+]?\.\d+"
_LIST = rf"((?:{NUMBER})(?:\s*(?:,\s+and|,|and|&)\s*(?:{NUMBER}))+)"
_NOT_SUMS = re.compile(r"\d{4}-\d\d?-\d\d?|\b\d\d?/\d\d?/\d{2,4}|\b24/7\b|\b\d{3}-\d{3,4}\b")
_WORDS = (
    (r"\bmultiplied by\b|\btimes\b|[×·]|(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"\bdivided by\b|\bover\b|÷", "/"),
    (r"\bplus\b|\badded to\b", "+"),
    (r"\bminus\b|\bless\b|[−–]", "-"),
    (r"\bmodulo\b|\bmod\b", "%"),
    (r"\bto the power of\b|\^", "**"),
    (r"\bsquared\b", "**2"),
)
_EXPRESSION = re.compile(r"[-+]?[(\s]*(?:\d|\.\d)[\d.,()\s*/+%-]*")
_ASKS = re.compile(
    r"\b(what(?:'s| is| are)|calculate|compute|work out|how much is|evaluate|solve)\b", re.IGNORECASE
)
_BINARY: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip


@dataclass(frozen=True)
class Sum:
    """Expression found in a question: as worded (`asked`), in Python syntax, and the remaining question."""

    asked: str
    expression: str
    rest: str


def find(question: str) -> Sum | None:
    """Find the first expression that can be evaluated, or None."""
    text = _NOT_SUMS.sub(lambda m: "#" * len(m[0]), question)
    for rule in (_percent, _listed, _plain):
        found = rule(text)
        if found is not None and evaluate(found[1]) is not None:
            (start, end), expression = found
            asked = question[start:end].strip(" ?.=,")
            return Sum(asked, expression, question[:start] + " " + question[end:])
    return None


def evaluate(expression: str) -> str | None:
    """Evaluate an expression to a formatted number; None if it is invalid or has no value."""
    try:
        value = _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, TypeError, RecursionError, MemoryError):
        return None
    return plain(value) if isinstance(value, (int, float)) else None


def plain(value: float) -> str:
    """Format a number: 397.8 rather than 397.80000000000001, 12 rather than 12.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > 64 or abs(left) > 1e6):
            raise ValueError("too large a power")
        return _BINARY[type(node.op)](left, right)
    raise ValueError("not a sum")


Found = tuple[tuple[int, int], str] | None


def _percent(text: str) -> Found:
    """Parse percentages: 17% of 2,340 -> 2340*17/100."""
    match = re.search(rf"({NUMBER})\s*(?:%|percent|per cent)\s+of\s+\$?({NUMBER})", text, re.IGNORECASE)
    return (match.span(), f"{_digits(match[2])}*{_digits(match[1])}/100") if match else None


def _listed(text: str) -> Found:
    """Parse lists: the sum (product, average, difference) of 4, 5 and 6; add 4 and 5; multiply 4 by 5."""
    match = re.search(
        rf"(?:\bthe\s+)?\b(sum|total|product|average|mean|difference)\s+(?:of|between)\s+{_LIST}",
        text,
        re.IGNORECASE,
    )
    match = match or re.search(rf"\b(add|multiply)\s+{_LIST}", text, re.IGNORECASE)
    if not match:
        pair = re.search(rf"\b(multiply|divide)\s+({NUMBER})\s+by\s+({NUMBER})", text, re.IGNORECASE)
        sign = "*" if pair and pair[1].lower() == "multiply" else "/"
        return (pair.span(), f"{_digits(pair[2])} {sign} {_digits(pair[3])}") if pair else None
    numbers = [_digits(n) for n in re.findall(NUMBER, re.sub(r",(?=\s)|,(?!\d{3}\b)", " ", match[2]))]
    kind = match[1].lower()
    sign = {"product": " * ", "multiply": " * ", "difference": " - "}.get(kind, " + ")
    joined = sign.join(numbers)
    return match.span(), f"({joined}) / {len(numbers)}" if kind in ("average", "mean") else joined


def _plain(text: str) -> Found:
    """Parse infix: 12 * (3+4), 240 divided by 12. A lone minus or slash counts only if a sum is asked for."""
    square = re.search(rf"\bsquare root of ({NUMBER})", text, re.IGNORECASE)
    if square:
        return square.span(), f"{_digits(square[1])} ** 0.5"
    marked = text
    for words, sign in _WORDS:
        # Same length, so that positions in the marked text equal those in the question.
        marked = re.sub(words, lambda m, sign=sign: sign.rjust(len(m[0])), marked, flags=re.IGNORECASE)  # type: ignore[misc]
    for match in sorted(_EXPRESSION.finditer(marked), key=lambda m: -len(m[0].strip())):
        raw = (
            match[0].strip(" .,+-*/%(")
            if match[0].count("(") != match[0].count(")")
            else match[0].strip(" .,")
        )
        start = match.start() + match[0].index(raw)
        expression = " ".join(_digits(raw).split())
        signs = re.findall(r"(?<=[\d) ])\s*[-+*/%]", expression)
        sure = any(s.strip() in "+*" for s in signs) or _ASKS.search(text) or raw == text.strip(" ?.=")
        if signs and sure and evaluate(expression) is not None:
            return (start, start + len(raw)), expression
    return None


def _digits(text: str) -> str:
    """Remove thousands separators."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", text)
