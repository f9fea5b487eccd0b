"""`flask keyring`."""

from __future__ import annotations

import click

from service.cli.common import Commands, services

keyring = Commands("keyring", help="The keys under which users' texts are sealed.")


@keyring.command()
def rotate() -> None:
    """Give every user a new key, for texts from now on; the keys before stay, for texts that are there."""
    keys = services().keyring
    if keys is None:
        raise click.ClickException("Nothing is sealed: KEYRING_URL is not set.")
    count = keys.rotate()
    click.echo(f"New keys of {count} {'user' if count == 1 else 'users'}.")
