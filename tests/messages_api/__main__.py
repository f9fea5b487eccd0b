"""Start an API that plays `play`, and print its address: for a Slipway started by hand."""

from __future__ import annotations

import threading

from tests.messages_api.plays import play
from tests.messages_api.server import MessagesApi

print(MessagesApi(play).url, flush=True)
threading.Event().wait()
