"""`Cache-Control` of every response: `no-store`, unless its view sets another."""

from __future__ import annotations

from flask import Flask, Response


def install(app: Flask) -> None:
    """Set the default: a shared cache might otherwise serve a 200 or 404 to another user."""

    @app.after_request
    def no_store(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        return response
