"""The first admin, made from BOOTSTRAP_USERNAME and BOOTSTRAP_PASSWORD as soon as there is a database."""

from __future__ import annotations

from service.auth.users import UserService


class FirstAdmin:
    """Called until it has been done once: a service that lost all its users later gets none anew."""

    def __init__(self, users: UserService, username: str, password: str) -> None:
        self._users = users
        self._username = username
        self._password = password
        self._done = False

    def __call__(self) -> None:
        """Raises `DatabaseUnavailable`: call again later."""
        if not self._done:
            self._users.bootstrap(self._username, self._password)
            self._done = True
