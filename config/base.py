"""Every setting: its type, default and meaning. One class per environment narrows or changes these."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from config import derived
from config.rules import Rules

DEVELOPMENT_SECRET = "development-only-secret-never-use-it-elsewhere"


def is_limit(name: str) -> bool:
    """Whether a field is a limit or a budget: empty is none there, and not the default."""
    return name.startswith("limit_") or (name.startswith("budget_") and name.endswith("_usd"))


class Settings(Rules):
    """Typed, validated, frozen. Built by `config.load`; building one directly reads nothing from outside.

    What was left empty is filled in here once: `database_url`, `redis_url` and `anthropic_base_url` are the
    addresses in use.
    """

    environment: ClassVar[str] = "base"

    # where things are
    slipway_home: Path = Field(Path("var"), description="State folder: embedded Redis, SQLite, sockets")
    agents_dir: Path = Field(Path("agents"), description="Folder with one sub-folder per agent")
    database_url: str = Field(
        "",
        repr=False,
        description="`sqlite:///path` or `postgresql://…`, also of several hosts (`postgresql://h1:5432,h2:5432/db`): "
        "the one that takes writes is used; empty: SQLite under SLIPWAY_HOME",
    )
    database_pool_size: int = Field(
        10,
        ge=2,
        le=200,
        description="Most connections to the database of each process, web worker or process of a task worker",
    )
    redis_url: str = Field(
        "",
        repr=False,
        description="`redis://…`, `redis+sentinel://…`, `redis+cluster://…`, the same with `rediss` over TLS, or "
        "`unix://path`; see docs/growing.md; empty: embedded, under SLIPWAY_HOME",
    )
    broker_url: str = Field(
        "",
        repr=False,
        description="Where Celery's messages go: `amqp://…` or `amqps://…` (RabbitMQ), or another Redis than a "
        "cluster, which cannot carry them; empty: that of REDIS_URL",
    )
    host: str = Field("127.0.0.1", description="Address Gunicorn listens on")
    port: int = Field(8000, ge=0, le=65535, description="Port Gunicorn listens on")

    # the model
    anthropic_api_key: SecretStr = Field(
        SecretStr(""), description="Key of the Messages API; empty: the offline model"
    )
    offline_model_port: int = Field(
        8099,
        ge=0,
        le=65535,
        description="Port of the offline model when there is no key; `make run` takes a free one if taken",
    )
    anthropic_base_url: str = Field(
        "",
        description="Address of the Messages API; empty: the provider's own, "
        "or the offline model's when there is no key",
    )
    model_simple: str = Field("claude-haiku-5-5", description="Model of tier `simple`")
    model_medium: str = Field("claude-sonnet-5-5", description="Model of tier `medium`")
    model_complex: str = Field("claude-opus-5-5", description="Model of tier `complex`")
    model_timeout: float = Field(120.0, gt=0, description="Longest silence of the model, in seconds")
    model_connect_timeout: float = Field(
        3.0,
        gt=0,
        description="Longest wait for a connection to the model, name look-up and TLS included, in seconds",
    )
    model_retries: int = Field(
        3, ge=0, le=10, description="How often a failed model call is tried again before its first byte"
    )
    model_max_connections: int = Field(1024, ge=1, description="Most connections to the model per worker")
    breaker_failures: int = Field(
        5, ge=1, description="Model failures in a row that open the circuit breaker"
    )
    breaker_recovery: float = Field(
        10.0, gt=0, description="Seconds an open breaker waits before it lets one probe through"
    )
    batch_max_size: int = Field(
        100,
        ge=1,
        le=10_000,
        description="So many waiting steps of tasks with `priority: batch` go out at once",
    )
    batch_max_wait_seconds: float = Field(
        60.0, ge=0, description="Longest a step waits for others to go out with, in seconds"
    )

    # the process
    web_concurrency: int = Field(2, ge=1, description="Gunicorn workers")
    threads: int = Field(
        1024,
        ge=4,
        description="Most threads per worker, begun on demand: each serves one request. An eighth, at most 64, stay "
        "free of runs and of those who wait or follow, for log-ins, cache hits and health checks",
    )
    task_concurrency: int = Field(
        2, ge=1, description="Processes of one task worker: each drives one queued run at a time"
    )
    task_metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port at which a task worker tells its own figures to Prometheus; 0: none, which is right where "
        "a web server has the same SLIPWAY_HOME and PORT, and tells them with its own",
    )
    graceful_timeout: int = Field(
        30, ge=1, description="Seconds a stopping worker gives to what is under way"
    )
    run_timeout: float = Field(
        300.0,
        gt=0,
        description="Longest life of one attempt at a run, in seconds, without waits for a person",
    )
    heartbeat_seconds: float = Field(
        10.0, gt=0, le=15, description="Longest silence of an event stream before a comment line is sent"
    )
    lease_seconds: float = Field(
        10.0, ge=1, description="How long a worker owns a run without renewing; recovery starts after it"
    )
    sweep_seconds: float = Field(
        3.0, gt=0, description="How often abandoned runs and unsent tasks are looked for"
    )
    session_conflict: Literal["reject", "queue", "interrupt"] = Field(
        "reject",
        description="A turn in a busy session, where its request has no `on_conflict`: 409 `session_busy`, wait, or "
        "cancel the turn under way",
    )
    session_ttl_days: int = Field(90, ge=1, description="Days after its last turn until a session is deleted")
    session_history_tokens: int = Field(
        20_000,
        ge=500,
        description="Token budget of a session's history in a prompt; older turns are summarised",
    )
    retention_days: int = Field(
        90, ge=1, description="Days finished runs, steps and idempotency records are kept"
    )

    # people and limits
    secret_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET),
        description="Signs tokens and webhooks, peppers API keys; 32 characters or more",
    )
    jwt_private_key: SecretStr = Field(
        SecretStr(""),
        description="Ed25519 private key (PEM); when set, tokens are signed with it and "
        "`/.well-known/jwks.json` shows the public key",
    )
    access_token_minutes: int = Field(
        15, ge=1, description="Life of an access token; a shorter one ends those that live longer"
    )
    refresh_token_days: int = Field(
        30, ge=1, description="Life of a refresh token; a shorter one ends those that live longer"
    )
    bootstrap_username: str = Field("", description="First admin, made only while there is no user at all")
    bootstrap_password: SecretStr = Field(SecretStr(""), description="Password of the first admin")
    limit_runs: str = Field("600/minute", description="Agent calls per user; `none`: no limit")
    limit_concurrent_runs: int | None = Field(
        250,
        ge=1,
        description="Runs of one user under way at once, over all replicas. Requests that wait or follow are no "
        "runs: of those one user may have half of a worker's places; `none`: no limit",
    )
    limit_session: str = Field(
        "60/minute", description="Turns of one session, within LIMIT_RUNS; `none`: no limit"
    )
    limit_writes: str = Field(
        "300/minute",
        description="Calls per user that change something and start no run: sessions, keys, users, decisions, "
        "cancellations; refreshes as many again; `none`: no limit",
    )
    limit_reads: str = Field("3000/minute", description="Calls per user that only read; `none`: no limit")
    limit_login: str = Field(
        "10/minute",
        description="Log-ins per address (of IPv6 per /64), right or wrong; people behind one NAT share it; "
        "`none`: no limit",
    )
    limit_refused: str = Field(
        "300/minute",
        description="Made-up keys and tokens per address; over it they are answered 429, right ones are not; "
        "`none`: no limit",
    )
    limit_invoke: str = Field("", description="`invoke` calls per user, within LIMIT_RUNS; empty: no limit")
    limit_stream: str = Field("", description="`stream` calls per user, within LIMIT_RUNS; empty: no limit")
    limit_task: str = Field("", description="Tasks queued per user, within LIMIT_RUNS; empty: no limit")
    limit_tool: str = Field("", description="Tool calls per user, such as `300/minute`; empty: no limit")
    limit_tokens: str = Field(
        "",
        description="Tokens per user, such as `200000/minute`, without those read from the prompt cache; "
        "empty: no limit",
    )
    webhook_allow_private: bool = Field(
        False,
        description="Webhooks may go to this machine and its network; refused in staging and production",
    )
    trusted_proxies: int = Field(
        0, ge=0, description="How many proxies in front set X-Forwarded-For; 0 trusts none"
    )

    # the answer cache
    cache_enabled: bool = Field(
        True, description="Keep whole answers and share questions asked at once; off: `X-Cache: bypass`"
    )
    cache_ttl_seconds: int = Field(
        3600,
        ge=1,
        description="Longest life of a kept answer; `cache.ttl_seconds` of an agent counts where it is shorter",
    )
    near_stop_phrases: str = Field(
        "hi, hello, hey, hi there, good morning, good afternoon, good evening, please, could you tell me, "
        "can you tell me, could you please tell me, can you please tell me, tell me, i would like to know, "
        "i'd like to know, i want to know, thanks, thank you, thanks in advance",
        description="Courtesies that make no difference where they stand apart from a question, divided by commas",
    )
    semantic_cache_url: str = Field(
        "",
        repr=False,
        description="Endpoint of OpenAI's embeddings API, such as `https://host/v1/embeddings`; "
        "when set, questions that mean the same share an answer",
    )
    semantic_cache_key: SecretStr = Field(SecretStr(""), description="Key of that endpoint, if it needs one")
    semantic_cache_model: str = Field("text-embedding-3-small", description="Model asked for there")
    semantic_cache_threshold: float = Field(
        0.95, ge=0.5, le=1, description="Least cosine of two questions that mean the same"
    )

    # money
    budget_user_day_usd: str = Field(
        "100.00",
        description="Dollars each user may spend in a day (UTC) without a cap of their own; empty: no cap",
    )
    budget_service_day_usd: str = Field(
        "1000.00", description="Dollars the whole service may spend in a day (UTC); empty: no cap"
    )
    budget_run_usd: str = Field("", description="Dollars one run may spend; empty: as much as the caps allow")
    budget_webhook_url: str = Field(
        "",
        repr=False,
        description="Warnings at 50, 80 and 100 percent of a cap are posted there, signed; empty: nowhere",
    )

    # what is told
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="Least severe level that is logged; the line of each request always is. Libraries log at INFO "
        "at most, since their DEBUG tells prompts and keys",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: text in a terminal, JSON otherwise"
    )
    metrics_enabled: bool = Field(
        True, description="Tell figures at `/metrics`; off: 404 there, and no metric files are written"
    )
    debug: bool = Field(False, description="Flask's debug mode; refused in staging and production")
    reload: bool = Field(
        False,
        description="An edited, new or removed agent counts from the next request, and `make run` starts the service "
        "again when its code changes; refused in staging and production, where a deploy or a restart does it",
    )

    @property
    def request_places(self) -> int:
        """Requests that may run, wait or follow in one worker at once; the other threads stay free for short ones."""
        return self.threads - min(64, max(2, self.threads // 8))

    @property
    def most_requests(self) -> int:
        """Requests in one worker at once, of any kind; the threads beyond them serve health checks alone."""
        return self.threads - min(4, (self.threads - self.request_places) // 2)

    @property
    def agents_summary(self) -> Path:
        """File in which the service says which agents it serves, for the banner of `make run`."""
        return self.slipway_home / "agents.json"

    @property
    def offline(self) -> bool:
        """There is no key, so the offline model answers."""
        return derived.is_offline(self.anthropic_api_key.get_secret_value())

    @property
    def embedded_redis(self) -> bool:
        """Redis is the private server that `make run` starts."""
        return self.redis_url == derived.embedded_redis_url(self.slipway_home)
