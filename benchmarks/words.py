"""What the page of figures says in words."""

HOW = """\
Everything is on that users run: sign-in by JWT, a limit per user, the answer cache, money held and settled, kept
steps, metrics, and a JSON log line in a file. Questions are new each time, so that each of them misses the cache and
is stored in it. Two workers each, the database is SQLite unless said otherwise; each service has a Redis of its own.
Slipway runs with its defaults, threads and limits included; only its spending caps are raised. Requests come from 20
users in turn, each within the default limits (600 agent calls a minute, 250 runs at once). FastAPI is a service as a
team would write it in an afternoon (`benchmarks/peers/fastapi_app`): the same JWT check, limit and cache, and the
faster of the SDK's two ways to stream; it keeps nothing. LiteLLM's proxy runs without a database, asked at
`/v1/messages`. AgentOS keeps runs in SQLite and has no cache. “SDK, no service” is the official asynchronous SDK in
one process, its own load generator: what the call costs before there is any service.

The upstream speaks the Messages API from canned bytes; it and the load generator run on the same machine, over
loopback. Services are measured in turn (A B A B), and a ratio is that of two neighbours in one round: the median,
and in brackets the least and the greatest. **CPU is the figure to compare**: the time of all processes of a
service, whole trees, per good answer; its Redis is a column of its own. Times depend on the load of the machine
more than that. An answer that is not whole and good is an error, never a figure. Clients of C and D begin evenly
over the length of one call, and each makes two, one after the other.
"""

REPEAT = """\
    make bench                                            # everything, about half an hour
    make bench ARGS="--only A,B --peers slipway,fastapi"  # some of it
    make bench-quick                                      # two minutes: ratios beside those that were kept

Nothing leaves the machine once the peers are installed (`make bench-peers`). Results are kept in
`benchmarks/results/`; `python -m benchmarks.report FILE` writes this page again from one."""
