"""`python -m slipway_client.cli`."""

from slipway_client.cli import main

main()
