"""`Cache-Control` of every answer: nobody keeps one whose view does not say that it may be kept."""

from __future__ import annotations

from flask import Flask, Response


def install(app: Flask) -> None:
    """Add `no-store` to what has no such header: a shared cache may otherwise keep a 200 or 404 for somebody else."""

    @app.after_request
    def no_store(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        return response
