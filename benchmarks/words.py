"""Paragraphs of docs/performance.md: method, missed goals, commands."""

HOW = """\
**Method.** Everything that users run is on: JWT sign-in, a limit per user, the answer cache, holds and settlements,
committed steps, metrics and a JSON log file. Every question is new, so it misses the cache and is stored there. Two
workers each; SQLite unless a row says PostgreSQL; one Redis per service. Slipway runs with its defaults, except for
raised spending caps; 20 users take turns, each within the default limits. FastAPI is a small service with the same JWT
check, limit and cache, and no storage (`benchmarks/peers/fastapi_app`); LiteLLM's proxy runs without a database and is
called at `/v1/messages`; AgentOS stores runs in SQLite and has no cache; "SDK, no service" is the official asynchronous
SDK in one process. Upstream (canned bytes) and load generator run on the same machine, over loopback. Services take
turns (A B A B), and a ratio compares neighbours of one round: median, then least and greatest in brackets. **CPU is the
figure to compare**: the time of all processes of a service per correct answer, its Redis in a column of its own; times
depend on the load of the machine more. An incomplete or wrong answer is an error. Clients of C and D start evenly over
the length of one call and make two calls each, one after the other."""

# Of the last complete run; write it anew after the next one.
MISSED = """\
**Missed goals.** *Times* (1,000 calls, 500 streams, streams held, first token): two cores carry service, upstream and
load generator together, and on the day of this run the SDK alone had p99 at 6.6 × ideal with 1,000 calls (1.9 two days
before) and 3.3 with 500 streams, Slipway 3.2 and 2.6. *CPU of a cache hit and of 200 streams*: Gunicorn's threads
([decision 15](adr/0015-gunicorns-own-threads.md)) cost more on a loopback than the worker before them (1.21 of FastAPI
instead of 0.98; 0.65 instead of 0.34), and give twice as many hits where Redis is a millisecond away, as in production.
*2,000 calls* exceed the 1,920 places of two processes: the rest get 503 with `Retry-After`, which counts as an error.
Profiles and what was tried: `benchmarks/notes.md`."""

REPEAT = """\
    make bench                                            # everything, about half an hour
    make bench ARGS="--only A,B --peers slipway,fastapi"  # some of it
    make bench-quick                                      # two minutes: ratios compared with stored ones

`make bench-peers` installs the peers; after that nothing leaves the machine. `python -m benchmarks.report FILE` writes
this page from a result in `benchmarks/results/`."""
