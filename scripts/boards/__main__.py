"""Write the Grafana boards: `python -m scripts.boards FOLDER`, by `make docs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from scripts.boards.agents import AGENTS, COST, QUALITY
from scripts.boards.queries import Board, Panel
from scripts.boards.service import CAPACITY, OVERVIEW

SOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24  # of Grafana's grid
BOARDS = (OVERVIEW, COST, AGENTS, CAPACITY, QUALITY)


def board_json(board: Board) -> dict[str, Any]:
    """Return a board as Grafana reads it: each row's panels from left to right."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in board.rows.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "id": len(panels) + 1,
                "panels": [],
                "gridPos": _at(0, top, COLUMNS, 1),
            }
        )
        top, left = top + 1, 0
        width, height = (4, 4) if row[0].kind == "stat" else (6 if len(row) == 4 else 8, 8)
        for panel in row:
            if left + width > COLUMNS:
                top, left = top + height, 0
            panels.append({**_panel(panel), "id": len(panels) + 1, "gridPos": _at(left, top, width, height)})
            left += width
        top += height
    return {
        "uid": f"slipway-{board.name}",
        "title": board.title,
        "tags": ["slipway"],
        "schemaVersion": 39,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "editable": False,
        "links": [
            {
                "type": "dashboards",
                "tags": ["slipway"],
                "title": "Slipway",
                "asDropdown": False,
                "keepTime": True,
            }
        ],
        "panels": panels,
    }


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
        for place, (legend, expression) in enumerate(panel.queries.items())
    ]
    about = {"description": panel.about} if panel.about else {}
    shares = {"min": 0, "max": 1} if panel.unit == "percentunit" else {"min": 0}
    options: dict[str, Any] = (
        {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none"}
        if panel.kind == "stat"
        else {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    )
    return {
        "type": panel.kind,
        "title": panel.title,
        **about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, **shares}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    return {
        f"{board.name}.json": json.dumps(board_json(board), indent=1, ensure_ascii=False) + "\n"
        for board in BOARDS
    }


if __name__ == "__main__":
    for name, text in files().items():
        (Path(sys.argv[1]) / name).write_text(text)
