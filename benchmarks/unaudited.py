"""Start file of the benchmark: Gunicorn with a service that writes no row of the audit.

The service has no such switch. `record` is replaced before any other module takes it.
"""

from __future__ import annotations

from gunicorn.app.wsgiapp import run

from service.audit import record as audit


def nothing(*_: object, **__: object) -> None:
    pass


audit.record = nothing
if __name__ == "__main__":
    run()
