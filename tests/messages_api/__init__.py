"""An independent Messages API over HTTP: it answers by a script, and judges each request by the API's rules."""
