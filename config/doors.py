"""Define the settings of the doors: streams, WebSockets, and the bodies of clients of other APIs."""

from __future__ import annotations

from pydantic import Field

from config.saving import Saving

MIB = 1024 * 1024


class Doors(Saving):
    """Fields of `config.base.Settings` about the doors."""

    door_body_limit: int = Field(
        32 * MIB,
        ge=MIB,
        le=64 * MIB,
        description="Most bytes of a body at the doors for clients of other APIs, which holds images and documents; "
        "any other body has 1 MiB at most. Of bodies above that, a worker takes twice as many bytes at once, and half "
        "of them from one user",
    )
    file_bytes_per_user: int = Field(
        5 * 1024 * MIB,
        ge=64 * MIB,
        description="Most bytes of images and documents that are stored for one user; calls that bring more are 413 "
        "until runs and sessions that refer to some are deleted, or expire. Calls at the same moment may pass it",
    )
    heartbeat_seconds: float = Field(
        10.0, gt=0, le=15, description="Longest silence of an event stream before a comment line is sent"
    )
    socket_idle_seconds: float = Field(600.0, gt=0, description="Longest silence of a WebSocket, in seconds")
