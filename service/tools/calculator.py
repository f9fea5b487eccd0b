"""Exact arithmetic on text, by walking a syntax tree of allowed nodes. Nothing is evaluated by Python itself."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction

MAX_LENGTH = 500  # maximum characters of an expression
MAX_BITS = 20_000  # of an intermediate numerator or denominator: 1.00375 ** 360 needs 3,100
MAX_EXPONENT = 1_000
MAX_MAGNITUDE = 100  # decimal digits before the decimal point of a result
MAX_PLACES = 30  # decimal places of round()
_EXACT = Context(prec=30)  # a result with more digits than this is rounded
_ROUNDED = Context(prec=15)  # to this many
_ROOTS = Context(prec=40)

_SIGNS = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**", "$": "", "€": "", "£": ""}
)
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_PERCENT_OF = re.compile(r"([0-9][0-9_.]*|\))\s*%\s*of\b", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9][0-9_.]*|\))\s*%(?=\s*(?:$|[-+*/),]))")
_EXPONENT = re.compile(r"e[+-]?0*([0-9]+)$", re.IGNORECASE)


class CalculationError(ValueError):
    """Raised for an expression that cannot be evaluated. The message is for its author."""


def calculate(expression: str) -> str:
    """Evaluate `expression` to a decimal string: exact up to 30 digits, else rounded to 15 significant ones.

    Supports + - * / // % ** ( ), round, min, max, abs, sqrt, thousands separators outside functions, and percentages:
    `17% of 2,340` is `397.8`. Raises `CalculationError`.
    """
    if len(expression) > MAX_LENGTH:
        raise CalculationError(f"the expression is longer than {MAX_LENGTH} characters")
    source = _normalised(expression)
    try:
        tree = ast.parse(source, mode="eval")
        return _text(_value(tree.body, source))
    except CalculationError:
        raise
    except ZeroDivisionError:
        raise CalculationError("division by zero") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError, InvalidOperation, OverflowError):
        raise CalculationError("not an arithmetic expression I can read") from None


def _normalised(expression: str) -> str:
    """Translate everyday arithmetic notation to Python's. Inside a function a comma separates arguments."""
    source = expression.translate(_SIGNS).strip().rstrip("=").strip()
    if not re.search(r"[a-z]\s*\(", source):
        source = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), source)
    source = _PERCENT_OF.sub(lambda match: _hundredth(match[1]) + "*", source)
    return _PERCENT.sub(lambda match: _hundredth(match[1]), source)


def _hundredth(number: str) -> str:
    return ")/100" if number == ")" else f"({number}/100)"


def _value(node: ast.expr, source: str) -> Fraction:
    match node:
        case ast.Constant():
            return _number(node, source)
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand, source)
        case ast.UnaryOp(op=ast.UAdd()):
            return _value(node.operand, source)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            operation = _OPERATORS[type(node.op)]
            return _bounded(operation(_value(node.left, source), _value(node.right, source)))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            least, most, function = _FUNCTIONS[name]
            if not least <= len(node.args) <= most:
                raise CalculationError(f"{name} does not take {len(node.args)} arguments")
            return _bounded(function(*(_value(argument, source) for argument in node.args)))
    raise CalculationError("only numbers, + - * / // % ** ( ) and " + ", ".join(_FUNCTIONS) + " are known")


def _number(node: ast.Constant, source: str) -> Fraction:
    """Parse a literal from its source text: as a float, 0.1 would not be exactly a tenth."""
    if type(node.value) is int:
        return _bounded(Fraction(node.value))
    literal = ast.get_source_segment(source, node) or ""
    exponent = _EXPONENT.search(literal)
    if type(node.value) is not float or (exponent and int(exponent[1]) > MAX_MAGNITUDE):
        raise CalculationError("that is not a number I can use")
    return Fraction(literal.replace("_", ""))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise CalculationError("a number on the way is too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if abs(exponent) > MAX_EXPONENT:
        raise CalculationError(f"an exponent may be at most {MAX_EXPONENT:,}")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator == 1:
        if bits * abs(exponent) > MAX_BITS and abs(base) != 1:
            raise CalculationError("that power is too large")
        return Fraction(base**exponent.numerator)
    if base < 0:
        raise CalculationError("a negative number has no such root")
    result = _ROOTS.power(_decimal(base, _ROOTS), _decimal(exponent, _ROOTS))
    if abs(result.adjusted()) > 4 * MAX_MAGNITUDE:
        raise CalculationError("that power is too large")
    return Fraction(result)


def _sqrt(value: Fraction) -> Fraction:
    if value < 0:
        raise CalculationError("a negative number has no square root")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return root if root * root == value else Fraction(_ROOTS.sqrt(_decimal(value, _ROOTS)))


def _round(value: Fraction, places: Fraction = Fraction(0)) -> Fraction:
    """Round half away from zero, as on an invoice, unlike Python's half-to-even."""
    if places.denominator != 1 or abs(places) > MAX_PLACES:
        raise CalculationError(f"round takes a whole number of places, at most {MAX_PLACES}")
    scale = Fraction(10) ** places.numerator
    rounded = math.floor(abs(value) * scale + Fraction(1, 2)) / scale
    return rounded if value >= 0 else -rounded


def _decimal(value: Fraction, context: Context) -> Decimal:
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def _text(value: Fraction) -> str:
    if abs(value) >= 10**MAX_MAGNITUDE:
        raise CalculationError("the result is too large")
    exact = _decimal(value, _EXACT)
    shown = exact if Fraction(exact) == value else _decimal(value, _ROUNDED)
    text = f"{shown:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_FUNCTIONS: dict[str, tuple[int, int, Callable[..., Fraction]]] = {  # name → minimum and maximum arguments
    "round": (1, 2, _round),
    "min": (1, 50, lambda *values: min(values)),
    "max": (1, 50, lambda *values: max(values)),
    "abs": (1, 1, abs),
    "sqrt": (1, 1, _sqrt),
}
