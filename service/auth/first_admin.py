"""Bootstrap admin from BOOTSTRAP_USERNAME and BOOTSTRAP_PASSWORD, created as soon as the database answers."""

from __future__ import annotations

from service.auth.users import UserService


class FirstAdmin:
    """Create the first admin once per process: a service whose users are all deleted later gets no new one."""

    def __init__(self, users: UserService, username: str, password: str) -> None:
        self._users = users
        self._username = username
        self._password = password
        self._done = False

    def __call__(self) -> None:
        """Run the bootstrap unless done. Raises `DatabaseUnavailable`: call again later."""
        if not self._done:
            self._users.bootstrap(self._username, self._password)
            self._done = True
