"""Paragraphs of docs/performance.md: method, missed goals, commands."""

HOW = """\
**Method.** Everything that users run is on: JWT sign-in, a limit per user, the answer cache, holds and settlements,
committed steps, metrics and a JSON log. Every question is new, so it misses the cache and is stored there.
*Production's shape*: two replicas of two processes behind the project's nginx, Redis and PostgreSQL 15 (its own
defaults, `fsync` on) behind a TCP proxy of the benchmark's own, through which each answer comes 1 ms later;
`APP_ENV=production` with raised caps and `LIMIT_RUNS`, and a token that lasts the run. What differs from production:
plain HTTP, no password of the database, a model on loopback, no task worker, and one machine for everything. FastAPI
(`benchmarks/peers/fastapi_app`) has as many processes, the same nginx and delays, the same JWT check, limit and
cache, and keeps nothing; “with rows” it reads its user from PostgreSQL and keeps each answer of the model there
(asyncpg, without the pool's reset: two trips an invoke). LiteLLM's proxy runs without a database and is called at
`/v1/messages`; AgentOS stores runs in PostgreSQL and has no cache. *Loopback*: two workers each, SQLite, one Redis
per service, no proxy, no nginx; "SDK, no service" is the official asynchronous SDK in one process. Upstream (canned
bytes), proxy and load generator run on the same machine, and their CPU counts for nobody. Services take turns (A B A
B), and a ratio compares neighbours of one round: median, then least and greatest in brackets. **CPU is the figure to
compare**: the time of all processes of a service, nginx included, per correct answer, its Redis and PostgreSQL in
columns of their own; rates and times depend on the load of the machine more. An incomplete or wrong answer is an
error. A trip is a burst from the service that an answer follows; until the answer, the least of a dozen requests; in
all, the mean less what an idle process makes. Clients of streams and calls start evenly over the length of one call
and make two each."""

# Of the last complete run; write it anew after the next one.
MISSED = """\
**Missed goals.** *Production's shape.* The application itself takes half of a hit's CPU (1,090 Python calls, 0.54 ms
with one client); the rest is nginx, Gunicorn's parser and the hand-over between its threads, which FastAPI's single
thread has none of (ADR 15). An invoke's own CPU is near that of FastAPI with rows; its rate falls behind on two cores
that carry everything, as PostgreSQL works 1.75 ms for it (FastAPI's one row: 0.3): a run, its steps, a hold and its
settlement, counters, an audit row, all of them promises. The same shows in the long queues of 1,000 calls, in which
FastAPI is at 1.4 to 1.65 of the ideal, and of 500 streams, where it is at 2.6. *First token of 200 streams*: four
trips of a millisecond and the threads' turns. *Idle memory*: 8 processes; workers write to 40 MiB of what they share
when forked. *Loopback*: with SQLite the work of the database is in the service's own processes; the most streams are
bounded by the same two cores. Profiles and what was tried: `benchmarks/notes.md`."""

REPEAT = """\
    make bench                                          # everything, more than an hour
    make bench ARGS="--only P --peers slipway,fastapi"  # some of it
    make bench ARGS="--only P --peers slipway,slipway@../before"  # beside another checkout
    make bench-quick                                    # a few minutes: ratios compared with stored ones
    python -m benchmarks.trips --show invoke            # every burst of one request, with its statements
    python -m benchmarks.threads                        # CPU of Gunicorn itself per request

`make bench-peers` installs the peers; after that nothing leaves the machine. `python -m benchmarks.report FILE` writes
this page from a result in `benchmarks/results/`."""
