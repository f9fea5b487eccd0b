"""Service that answers for this agent, to begin with. Slipway needs REMOTE_HOSTS=127.0.0.1:9100 for it.

A model is asked at `base_url` with `run_token` as the key, by any client of the Messages API: docs/remote-agents.md.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"status": "succeeded", "output": f"You said: {asked.get('input', '')}"}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9100"))), Service).serve_forever()
