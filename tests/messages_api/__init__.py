"""Independent Messages API over HTTP: answers by a script, and judges each request by the API's rules."""
