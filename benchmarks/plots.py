"""Plots as SVG, by our own few lines: bars for one figure of several servers, lines for figures over a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LEFT, BAR, GAP = 720, 190, 22, 8
HEIGHT, TOP, BOTTOM, RIGHT = 340, 40, 40, 170
COLOURS = ("#1f6feb", "#79b8ff", "#8c959f", "#2da44e", "#d4a72c", "#cf222e", "#8250df")
STYLE = "font-family='system-ui, sans-serif' font-size='13'"


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """One bar for each name, in the order given."""
    most = max(values.values(), default=0) or 1
    room = WIDTH - LEFT - 90
    parts = [_text(10, 22, title, "bold")]
    for n, (name, value) in enumerate(values.items()):
        y = TOP + n * (BAR + GAP)
        colour = COLOURS[0] if n == 0 else COLOURS[2]
        width = room * value / most
        parts.append(_text(LEFT - 8, y + 16, name, anchor="end"))
        parts.append(f"<rect x='{LEFT}' y='{y}' width='{width:.1f}' height='{BAR}' fill='{colour}'/>")
        parts.append(_text(LEFT + width + 6, y + 16, f"{value:.2f} {unit}"))
    return _svg(TOP + len(values) * (BAR + GAP) + 10, parts)


def lines(title: str, unit: str, lines: Mapping[str, Sequence[tuple[float, float]]], most: float) -> str:
    """One line for each name; what lies above `most` is drawn at the upper edge."""
    right = max((x for points in lines.values() for x, _ in points), default=1)

    def place(x: float, y: float) -> tuple[float, float]:
        high = HEIGHT - TOP - BOTTOM
        return 60 + (WIDTH - 60 - RIGHT) * x / right, HEIGHT - BOTTOM - high * min(y, most) / most

    parts = [_text(10, 22, title, "bold"), *_axes(place, right, most, unit)]
    for n, (name, points) in enumerate(lines.items()):
        colour = COLOURS[n % len(COLOURS)]
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in placed]
        parts.append(
            f"<rect x='{WIDTH - RIGHT + 14}' y='{TOP + n * 20}' width='12' height='12' fill='{colour}'/>"
        )
        parts.append(_text(WIDTH - RIGHT + 32, TOP + n * 20 + 11, name))
    return _svg(HEIGHT, parts)


def _axes(place: object, right: float, most: float, unit: str) -> list[str]:
    assert callable(place)
    parts = []
    for n in range(5):
        x0, y = place(0, most * n / 4)
        x1, _ = place(right, 0)
        parts.append(f"<line x1='{x0:.1f}' y1='{y:.1f}' x2='{x1:.1f}' y2='{y:.1f}' stroke='#d0d7de'/>")
        parts.append(_text(x0 - 6, y + 4, f"{most * n / 4:.3g}{unit}", anchor="end"))
        x, y = place(right * n / 4, 0)
        parts.append(_text(x, y + 20, f"{right * n / 4:,.0f}", anchor="middle"))
    return parts


def _text(x: float, y: float, text: str, weight: str = "normal", anchor: str = "start") -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-weight='{weight}'"
    return f"<text {place} fill='#24292f'>{escape(text)}</text>"


def _svg(height: float, parts: list[str]) -> str:
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' {STYLE}>"
    )
    return "\n".join([head, f"<rect width='{WIDTH}' height='{height:.0f}' fill='#fff'/>", *parts, "</svg>\n"])
