"""`Cache-Control` of every answer: `no-store`, unless its view says otherwise."""

from __future__ import annotations

from flask import Flask, Response


def install(app: Flask) -> None:
    """Set the default: a shared cache may otherwise keep a 200 or 404 for somebody else."""

    @app.after_request
    def no_store(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        return response
