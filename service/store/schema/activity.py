"""Tables of work: sessions, runs with their steps, batches, webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, SmallInteger, String, Text

from service.store.schema.base import OF_OTHERS, Json, metadata, rows_where, workspace_column
from service.store.schema.sealed import ERASED, SealedJson, SealedText

# Conditions of partial indexes of runs. Such an index serves only queries with the same literal condition: bound
# parameters do not match it.
UNFINISHED = "finished_at IS NULL"
ENDED_BADLY = "status IN ('failed', 'cancelled')"
DIED = "status = 'failed' AND losses > 0"
IN_LINE = "in_line AND status = 'queued'"
# True for each row, and said only where neither the user nor the agent is given. Else PostgreSQL reads all failures for
# the few of a user with many runs, whose share of failures it takes to be that of runs.
OF_ALL = "id > ''"
OF_SCHEDULES = "schedule_id IS NOT NULL"
OF_SUBJECTS = "subject_id IS NOT NULL"
# Request of a run whose key is destroyed.
_REQUEST = {"agent": "", "messages": [{"role": "user", "content": ERASED}]}

sessions = sa.Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    workspace_column(),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("title", SealedText("sessions.title"), nullable=False, default=""),  # 256 characters
    Column("metadata", SealedJson("sessions.metadata")),
    Column(
        "summary", SealedText("sessions.summary")
    ),  # summary of the turns up to `summary_upto`, which no longer fit a prompt
    Column("summary_upto", Integer, nullable=False, default=0),
    Column("summary_untrusted", Json),  # as `messages.untrusted`, of the summary
    Column(
        "placeholders", SealedJson("sessions.placeholders")
    ),  # values that the model did not see, by placeholder
    Column("busy_run_id", String(32)),  # run of the current turn; only this run may add messages
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Index("ix_sessions_user_id_id", "user_id", "id"),
    Index("ix_sessions_user_id_agent_id", "user_id", "agent", "id"),  # for keys with scopes
    Index("ix_sessions_agent_id", "agent", "id"),
    Index("ix_sessions_workspace_id_id", "workspace_id", "id", **rows_where(OF_OTHERS)),
)

messages = sa.Table(
    "messages",
    metadata,
    Column("session_id", String(32), ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("parent_seq", Integer),  # preceding message of the branch; 0: none; NULL: the one numbered before
    Column("run_id", String(32), nullable=False),
    Column("role", String(16), nullable=False),
    Column("content", SealedJson("messages.content", ERASED), nullable=False),
    Column("tokens", Integer, nullable=False),
    # Outcome, sources and tools of the turn; the latter two only in its last message. NULL in older rows.
    Column("status", String(16)),  # succeeded | failed | cancelled
    Column("error_code", String(64)),
    Column("sources", SealedJson("messages.sources")),
    Column("tools", SealedJson("messages.tools")),
    Column("untrusted", Json),  # sources of untrusted text in its run, names; NULL: not known
    Column("created_at", BigInteger, nullable=False),
)

workers = sa.Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # web | task
    Column("host", String(128), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    # By the database's clock. Renewed often, so not indexed: PostgreSQL then updates only the row's page.
    Column("alive_until", BigInteger, nullable=False),
    Column("state", Json),  # what the process tells of itself with each renewal; NULL by a release before
)

runs = sa.Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    workspace_column(),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("key_id", String(32)),
    Column("session_id", String(32)),
    Column("agent", String(64), nullable=False),
    Column("agent_version", String(32), nullable=False),
    Column("door", String(16), nullable=False),
    Column("request_id", SealedText("runs.request_id"), nullable=False),
    Column("request", SealedJson("runs.request", _REQUEST), nullable=False),
    Column("status", String(24), nullable=False),
    Column("tier", String(16)),
    Column("cache", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),  # incremented by each claim; fences writes
    Column("losses", Integer, nullable=False, default=0),  # number of workers that died executing the run
    # Last attempt whose client got events while Redis was unavailable: its live stream is incomplete.
    Column("live_gap_attempt", Integer),
    Column("parent_seq", Integer),  # message of the session before this turn; 0: none
    Column(
        "worker_id", String(64)
    ),  # worker that executes the run; others may claim it once this worker's lease has expired
    Column("wake_at", BigInteger),  # time at which an unclaimed queued run is announced again
    # Of a task: 0 high, 1 normal, 2 batch. A queued task is in line for a worker; not while its session is busy, or its
    # batch is under way. NULL, false: no task.
    Column("priority", SmallInteger),
    Column("in_line", Boolean, nullable=False, default=False, server_default=sa.false()),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("last_seq", Integer, nullable=False, default=0),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("cache_read_tokens", BigInteger, nullable=False, default=0),
    Column("cache_creation_tokens", BigInteger, nullable=False, default=0),
    Column("cost_nano", BigInteger, nullable=False, default=0),
    Column("result", SealedJson("runs.result")),
    Column("error", SealedJson("runs.error")),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    # For lists, which do not read `request` and `result`. NULL in rows of older versions.
    Column("input", SealedText("runs.input")),
    Column("steps", Integer),
    Column("model", String(128)),
    Column("stop_reason", String(32)),
    Column("schedule_id", String(32)),  # schedule of which it is a run
    Column("subject_id", String(32)),  # of a fork of somebody else's run: that user, with whom it is erased
    Index("ix_runs_user_id_id", "user_id", "id"),
    Index("ix_runs_user_id_agent_id", "user_id", "agent", "id"),
    Index("ix_runs_agent_id", "agent", "id"),
    # Only unfinished runs are swept, so only they are indexed: the index stays small at a million runs.
    Index("ix_runs_unfinished", "status", "worker_id", **rows_where(UNFINISHED)),
    Index("ix_runs_line", "priority", "workspace_id", "user_id", "id", **rows_where(IN_LINE)),
    Index("ix_runs_session_id_id", "session_id", "id", **rows_where("session_id IS NOT NULL")),
    # Lists of failed runs: few of a million, so a list must not scan until it has filled a page.
    Index("ix_runs_status_id", "status", "id", **rows_where(f"{ENDED_BADLY} AND {OF_ALL}")),
    Index("ix_runs_user_id_status_id", "user_id", "status", "id", **rows_where(ENDED_BADLY)),
    Index("ix_runs_user_id_agent_status_id", "user_id", "agent", "status", "id", **rows_where(ENDED_BADLY)),
    Index("ix_runs_agent_status_id", "agent", "status", "id", **rows_where(ENDED_BADLY)),
    Index("ix_runs_session_id_status_id", "session_id", "status", "id", **rows_where(ENDED_BADLY)),
    Index("ix_runs_schedule_id_id", "schedule_id", "id", **rows_where(OF_SCHEDULES)),
    Index(
        "ix_runs_schedule_id_status_id",
        *("schedule_id", "status", "id"),
        **rows_where(f"{OF_SCHEDULES} AND {ENDED_BADLY}"),
    ),
    Index("ix_runs_subject_id", "subject_id", **rows_where(OF_SUBJECTS)),
    Index("ix_runs_died", "id", **rows_where(DIED)),
    # Of all agents too: see `service.store.scoped`.
    Index("ix_runs_workspace_id_agent_id", "workspace_id", "agent", "id", **rows_where(OF_OTHERS)),
    Index(
        "ix_runs_workspace_id_agent_status_id",
        *("workspace_id", "agent", "status", "id"),
        **rows_where(f"{OF_OTHERS} AND {ENDED_BADLY}"),
    ),
)

# Turns of workspaces and of users, by priority, each numbered as it was given: whose was the longest ago comes next.
task_turns = sa.Table(
    "task_turns",
    metadata,
    Column("priority", SmallInteger, primary_key=True, autoincrement=False),
    Column("holder", String(32), primary_key=True),  # id of a workspace or a user
    Column("turn", BigInteger, nullable=False),
    Index("ix_task_turns_priority_turn", "priority", "turn"),
)

# Kill switch: agents that call no model and no tool until they are released.
agent_stops = sa.Table(
    "agent_stops",
    metadata,
    Column("agent", String(64), primary_key=True),
    Column("reason", String(500), nullable=False),
    Column("stopped_by", String(32)),  # user; NULL: the command line
    Column("stopped_at", BigInteger, nullable=False),
)

# Feedback of the user of a run.
feedback = sa.Table(
    "feedback",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("score", Integer, nullable=False),  # -1 | 0 | 1
    Column("comment", SealedText("feedback.comment")),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_feedback_score_run_id", "score", "run_id"),
)

steps = sa.Table(
    "steps",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),  # model | tools
    Column("name", String(128), nullable=False),  # the step's name in its pattern
    Column("attempt", Integer, nullable=False),
    # Result of the step, replayed to the pattern when the run is resumed.
    Column("reply", SealedJson("steps.reply", {}), nullable=False),
    Column(
        "events", SealedJson("steps.events", []), nullable=False
    ),  # [[seq, name, data], ...]: events published in this step
    Column("first_seq", Integer, nullable=False),
    Column("last_seq", Integer, nullable=False),
    Column("cost_nano", BigInteger, nullable=False, default=0),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=False),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    Column("user_id", String(32), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("run_id", String(32)),
    Column("status", Integer),
    Column("body", SealedJson("idempotency.body", {"detail": ERASED})),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

# Model steps that wait for a batch or are in one. The step's hold has the same run and step number.
batch_items = sa.Table(
    "batch_items",
    metadata,
    Column("id", String(64), primary_key=True),  # the custom id: run-step
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("request", SealedJson("batch_items.request", {}), nullable=False),
    Column("state", String(8), nullable=False),  # waiting | sent | done | failed
    Column("batch_id", String(32), index=True),
    Column("reply", SealedJson("batch_items.reply")),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_batch_items_state_created_at", "state", "created_at"),
    Index("ix_batch_items_run_id_step", "run_id", "step"),
)

batches = sa.Table(
    "batches",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("upstream_id", String(128)),  # NULL: being sent, or its sender died
    Column("size", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False, index=True),  # of the next poll, by any worker
    Column("created_at", BigInteger, nullable=False),
)

webhooks = sa.Table(
    "webhooks",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("url", SealedText("webhooks.url"), nullable=False),
    Column("status", String(16), nullable=False),  # waiting | pending | delivered | failed
    Column("attempts", Integer, nullable=False, default=0),
    Column("claim_id", String(32)),  # random, of the attempt under way: only that one stores its outcome
    Column("next_at", BigInteger, index=True),
    Column("last_error", String(256)),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
)

# Webhook notices that are not about a run: a cap was used to 50, 80 or 100 percent.
notices = sa.Table(
    "notices",
    metadata,
    Column("id", String(160), primary_key=True),  # subject of the notice, unique so that it is sent once
    Column("url", Text, nullable=False),
    Column("signer", String(32), nullable=False),  # owner of the secret that signs the notice
    Column("body", Json, nullable=False),
    Column("status", String(16), nullable=False),  # pending | delivered | failed
    Column("attempts", Integer, nullable=False, default=0),
    Column("claim_id", String(32)),  # random, of the attempt under way: only that one stores its outcome
    Column("next_at", BigInteger, index=True),
    Column("last_error", String(256)),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("delivered_at", BigInteger),
)
