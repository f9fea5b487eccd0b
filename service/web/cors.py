"""CORS: calls of the API from pages of other sites, by Flask-Cors.

They authenticate with a token or key, as every client does. Cookies are not allowed, and the header that the web page
proves itself with (`service.web.page_cookie`) is not among those another site may send.
"""

from __future__ import annotations

from flask import Flask

PATHS = r"/v1/.*|/\.well-known/.*|/openapi\.json"
SENT = (
    *(
        "Accept",
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
        "X-API-Key",
        "X-Request-ID",
    ),
    *("Anthropic-Version", "Anthropic-Beta"),
)
READ = (
    *("Idempotency-Replayed", "Location", "Retry-After", "Server-Timing", "X-Cache", "X-Cost-USD"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "X-Process-Time", "X-Request-ID"),
)
PREFLIGHT_SECONDS = 600  # a browser asks again after them; Chromium keeps an answer for 7,200 at most


def install(app: Flask, origins: str) -> None:
    """Allow `origins`, separated by commas; without any, no header is sent."""
    if origins:
        from flask_cors import CORS  # imported here: most deployments allow no other site

        CORS(
            app,
            resources={PATHS: {"origins": origins.split(",")}},
            methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=SENT,
            expose_headers=READ,
            max_age=PREFLIGHT_SECONDS,
            always_send=False,  # else each answer without an Origin lists all origins
        )
