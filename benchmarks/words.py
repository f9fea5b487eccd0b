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
**Missed goals.** *CPU of hits and invokes*, and with it their rates, the long queues of 500 streams and 1,000 calls
on two cores that carry everything, and the ratios to LiteLLM: an invoke makes few trips now, but the service's own
Python code grew with the house. `python -m benchmarks.profile` counts 1,870 Python calls in a hit (890 on 28
November) and 5,270 in an invoke (2,810): Werkzeug's context proxies and headers, Flask-Limiter, httpx2 under the
SDK, and layers of our own. Threads take the interpreter from each other on top of it: sixteen clients pay 2.4 times
what one does. *First token of 200 streams*: four trips of a millisecond and the threads' turns. *Idle memory* and
*memory per stream* are a few per cent over; memory was measured beside a busy machine. Not measured in this run:
most streams held (M), growth (H). Profiles and what was tried: `benchmarks/notes.md`."""

REPEAT = """\
    make bench                                          # everything, more than an hour
    make bench ARGS="--only P --peers slipway,fastapi"  # some of it
    make bench ARGS="--only P --peers slipway,slipway@../before"  # beside another checkout
    make bench-quick                                    # a few minutes: ratios compared with stored ones
    python -m benchmarks.trips --show invoke            # every burst of one request, with its statements
    python -m benchmarks.threads                        # CPU of Gunicorn itself per request

`make bench-peers` installs the peers; after that nothing leaves the machine. `python -m benchmarks.report FILE` writes
this page from a result in `benchmarks/results/`."""
