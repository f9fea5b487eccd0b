"""The command `slipway`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command. Its terminal parts are the extra `cli` of the package."""
    try:
        import rich  # noqa: F401
    except ImportError:
        sys.exit("slipway needs the extra `cli`: pip install 'slipway-client[cli]'")
    from slipway_client.cli.commands import run

    sys.exit(run(sys.argv[1:]))
