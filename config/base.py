"""Define every setting: type, default and meaning. One class per environment changes some of them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from config import derived
from config.doors import Doors

DEVELOPMENT_SECRET = "development-only-secret-never-use-it-elsewhere"


def is_limit(name: str) -> bool:
    """Check for a limit or budget field, where an empty value means none instead of the default."""
    return name.startswith("limit_") or (name.startswith("budget_") and name.endswith("_usd"))


class Settings(Doors):
    """Typed, validated, frozen settings. Built by `config.load`; the constructor itself reads no environment.

    Empty `database_url`, `redis_url` and `anthropic_base_url` are replaced by the addresses in use.
    """

    environment: ClassVar[str] = "base"

    # addresses and folders
    slipway_home: Path = Field(Path("var"), description="State folder: embedded Redis, SQLite, sockets")
    agents_dir: Path = Field(Path("agents"), description="Folder with one sub-folder per agent")
    agent_packages: str = Field(
        "",
        description="Installed packages whose agents and tools may be used, names separated by commas, such as "
        "`acme-agents`: their code runs in this service; empty: none",
    )
    database_url: str = Field(
        "",
        repr=False,
        description="`sqlite:///path` or `postgresql://…`, also of several hosts (`postgresql://h1:5432,h2:5432/db`): "
        "the one that accepts writes is used; empty: SQLite under SLIPWAY_HOME",
    )
    database_pool_size: int = Field(
        10,
        ge=2,
        le=200,
        description="Most connections to the database of each process, web worker or process of a task worker",
    )
    keyring_url: str = Field(
        "",
        repr=False,
        description="Database of the keys under which users' texts are sealed, as DATABASE_URL and never the same, "
        "with backups of its own: see docs/personal-data.md; empty: texts are not sealed",
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
        description="Broker of Celery's messages: `amqp://…` or `amqps://…` (RabbitMQ), or a Redis that is not a "
        "cluster; empty: that of REDIS_URL",
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
        description="Port of the offline model when there is no key; `make run` selects a free one if it is in use",
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
        3, ge=0, le=10, description="Retries of a failed model call before its first byte"
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
        description="Number of waiting steps of tasks with `priority: batch` that are sent at once",
    )
    batch_max_wait_seconds: float = Field(
        60.0, ge=0, description="Longest wait of a step for a batch, in seconds"
    )

    # the process
    web_concurrency: int = Field(2, ge=1, description="Gunicorn workers")
    threads: int = Field(
        1024,
        ge=4,
        description="Most threads per worker, started on demand: each serves one request. An eighth, at most 64, are "
        "reserved for short requests: log-ins, cache hits, health checks",
    )
    task_concurrency: int = Field(
        2, ge=1, description="Processes of one task worker: each executes one queued run at a time"
    )
    task_metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of a task worker's own Prometheus metrics; 0: none, for a task worker that shares "
        "SLIPWAY_HOME and PORT with a web server, which then serves them",
    )
    graceful_timeout: int = Field(
        30, ge=1, description="Seconds that a stopping worker gives to requests and runs in progress"
    )
    run_timeout: float = Field(
        300.0,
        gt=0,
        description="Longest life of one attempt at a run, in seconds, without waits for a person",
    )
    lease_seconds: float = Field(
        10.0,
        ge=1,
        description="Seconds that a worker owns its runs without renewing the lease; recovery starts after them",
    )
    sweep_seconds: float = Field(
        3.0, gt=0, description="Seconds between two sweeps for abandoned runs and unsent tasks"
    )
    approval_seconds: int = Field(
        604_800,
        ge=0,
        le=31_536_000,
        description="Seconds after which a call that nobody decided about is denied; 0: never",
    )
    cap_wait_seconds: int = Field(
        604_800,
        ge=1,
        le=31_536_000,
        description="Seconds that a run with `on_cap: pause` waits for room under a cap; then it fails",
    )
    approval_by_others: bool = Field(
        False, description="The user of a run may not decide about its calls, whatever their role"
    )
    session_conflict: Literal["reject", "queue", "interrupt"] = Field(
        "reject",
        description="A turn in a busy session, for requests without `on_conflict`: 409 `session_busy`, wait, or "
        "cancel the turn in progress",
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

    # users and limits
    secret_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET),
        description="Signs webhooks, peppers API keys, encrypts the keys that sign tokens; 32 characters or more",
    )
    jwt_private_key: SecretStr = Field(
        SecretStr(""),
        description="Ed25519 private key (PEM) with which a release before signed tokens: the first signing key of a "
        "database without any, and not read after that; empty: a new one",
    )
    access_token_minutes: int = Field(
        15, ge=1, description="Life of an access token; a shorter one ends those that live longer"
    )
    refresh_token_days: int = Field(
        30, ge=1, description="Life of a refresh token; a shorter one ends those that live longer"
    )
    bootstrap_username: str = Field("", description="First admin, created only while there is no user at all")
    bootstrap_password: SecretStr = Field(SecretStr(""), description="Password of the first admin")
    limit_runs: str = Field("600/minute", description="Agent calls per user; `none`: no limit")
    limit_concurrent_runs: int | None = Field(
        250,
        ge=1,
        description="Concurrent runs of one user, over all replicas. Requests that wait or follow are not "
        "runs: one user may have half of a worker's places for them; `none`: no limit",
    )
    limit_queued_runs: int | None = Field(20_000, ge=1, description="Waiting runs per user; `none`: no limit")
    max_queued_runs: int = Field(200_000, ge=1, description="Waiting runs of all users; more are 503")
    limit_session: str = Field(
        "60/minute", description="Turns of one session, within LIMIT_RUNS; `none`: no limit"
    )
    limit_writes: str = Field(
        "300/minute",
        description="Calls per user that change something and start no run: sessions, keys, users, decisions, "
        "cancellations; token refreshes have the same limit, counted apart; `none`: no limit",
    )
    limit_reads: str = Field("3000/minute", description="Calls per user that only read; `none`: no limit")
    limit_login: str = Field(
        "10/minute",
        description="Log-ins per address (of IPv6 per /64), right or wrong; people behind one NAT share it; "
        "`none`: no limit",
    )
    limit_refused: str = Field(
        "300/minute",
        description="Invalid keys and tokens per address; more are 429, valid ones are not affected; "
        "`none`: no limit",
    )
    limit_invoke: str = Field("", description="`invoke` calls per user, within LIMIT_RUNS; empty: no limit")
    limit_stream: str = Field("", description="`stream` calls per user, within LIMIT_RUNS; empty: no limit")
    limit_task: str = Field("", description="Tasks queued per user, within LIMIT_RUNS; empty: no limit")
    limit_tool: str = Field("", description="Tool calls per user, such as `300/minute`; empty: no limit")
    limit_tokens: str = Field(
        "",
        description="Tokens per user, such as `200000/minute`, without prompt cache reads; empty: no limit",
    )
    webhook_allow_private: bool = Field(
        False,
        description="Webhooks may go to this machine and its network; refused in staging and production",
    )
    fetch_hosts: str = Field(
        "",
        description="Hosts of your own network that the tool `fetch` may read besides public ones, such as "
        "`wiki.example.com` or `10.0.0.7:8080`, separated by commas; empty: none",
    )
    cors_origins: str = Field(
        "",
        description="Other sites whose pages may call the API in a browser, such as `https://app.example.com`, "
        "separated by commas, or `*`; they send a token or key, never a cookie; empty: none",
    )
    trusted_proxies: int = Field(
        0, ge=0, description="Number of proxies in front that set X-Forwarded-For; 0 trusts none"
    )

    # logs and metrics
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="Lowest level that is logged; request lines are always logged. Libraries log at INFO "
        "at most, since their DEBUG lines contain prompts and keys",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: text in a terminal, JSON otherwise"
    )
    metrics_enabled: bool = Field(
        True, description="Serve `/metrics`; off: 404 there, and no metric files are written"
    )
    debug: bool = Field(False, description="Flask's debug mode; refused in staging and production")
    reload: bool = Field(
        False,
        description="Reload edited agents at the next request, and restart the service under `make run` when its code "
        "changes; refused in staging and production: deploy or restart there",
    )

    @property
    def request_places(self) -> int:
        """Concurrent requests of one worker that may run, wait or follow; other threads are reserved for short ones."""
        return self.threads - min(64, max(2, self.threads // 8))

    @property
    def most_requests(self) -> int:
        """Concurrent requests of one worker of any kind; further threads serve health checks only."""
        return self.threads - min(4, (self.threads - self.request_places) // 2)

    @property
    def agents_summary(self) -> Path:
        """File with a summary of the served agents, for the banner of `make run`."""
        return self.slipway_home / "agents.json"

    @property
    def offline(self) -> bool:
        """Return whether the offline model answers, because there is no key."""
        key = self.anthropic_api_key.get_secret_value()
        return "anthropic" in self.providers and derived.is_offline(key)

    @property
    def page_cookie_secure(self) -> bool:
        """Return whether the web page's cookie is sent over TLS only, as it must be where others may listen."""
        return self.environment in ("staging", "production")

    @property
    def embedded_redis(self) -> bool:
        """Return whether Redis is the private server that `make run` starts."""
        return self.redis_url == derived.embedded_redis_url(self.slipway_home)
