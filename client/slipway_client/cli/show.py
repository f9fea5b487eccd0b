"""Events of a run in the terminal, as they come: its text on stdout, everything else on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from slipway_client.cli.console import clean, err, fail, note, piece, shortened
from slipway_client.events import Event
from slipway_client.models import RunResult
from slipway_client.streams import EventStream


class Show:
    """Shows events. `quiet`: the text is left out, for a caller that prints the result at the end."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._status = err.status("…") if err.is_terminal else None
        self._midline = False
        self._printed = ""

    def __enter__(self) -> Show:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def pause(self) -> None:
        """Leave the terminal to somebody else, at the beginning of a line."""
        if self._status is not None:
            self._status.stop()
        self._end_line()

    def event(self, event: Event, stream: EventStream) -> None:
        data = event.data
        match event.type:
            case "text.delta":
                self._text(event.text)
            case "step.started":
                self._progress(f"{branch(data)}step {data.get('step')}: {data.get('name')}")
            case "tool.called":
                self._note(f"{branch(data)}{data.get('name')} {shortened(data.get('arguments'))}")
            case "tool.finished":
                end = "ok" if data.get("ok") else "failed"
                self._note(f"{branch(data)}{end} ({data.get('ms')} ms): {data.get('preview')}")
            case "guardrail":
                self._note(f"{data.get('kind')} {data.get('action')}: {data.get('count')}")
            case "gap":
                self._note(f"Events {data.get('from_seq')} to {data.get('to_seq')} are no longer stored.")
            case "run.resumed":
                self._resumed(stream)

    def _resumed(self, stream: EventStream) -> None:
        """Print the text that holds once more, where some of what was printed is void."""
        if self._printed not in ("", stream.text):
            self._note("Another worker took the run over. The answer begins again:")
            self._printed = ""
            self._text(stream.text)

    def _text(self, text: str) -> None:
        if self._quiet or not text:
            return
        if self._status is not None:
            self._status.stop()  # a spinner and text on one line would mix
        piece(text)
        self._printed += text
        self._midline = not text.endswith("\n")

    def _progress(self, text: str) -> None:
        if self._status is not None and not self._midline:
            self._status.update(Text(clean(text)))  # of a str it would read the markup
            self._status.start()

    def _note(self, text: str) -> None:
        self._end_line()
        note(f"  {text}")

    def _end_line(self) -> None:
        if self._midline:
            piece("\n")
        self._midline = False


def branch(data: Mapping[str, Any]) -> str:
    """Return which sub-agent an event is of, such as `research 2: `; nothing for those of the lead."""
    return f"{data.get('agent')} {data['branch']}: " if "branch" in data else ""


def summary(result: RunResult) -> None:
    """Print the end of a run: its error, its sources, and what it cost."""
    if result.error is not None:
        fail(f"{result.error.get('code')}: {result.error.get('detail')}")
    for source in dict.fromkeys(f"{source.title} {source.uri}" for source in result.sources):
        note(f"  source: {source}")
    steps = "1 step" if result.steps == 1 else f"{result.steps} steps"
    note(f"  {result.run_id}: {result.status}, {steps}, {result.usage.cost_usd} USD")
