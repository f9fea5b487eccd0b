"""Message Batches API, in memory; processed in the background after a short delay."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from offline_model.models import paginate
from offline_model.shapes import ApiError, Json, error_body, invalid, next_id, rfc3339

MAX_BATCHES = 1000
MAX_REQUESTS = 100_000
CUSTOM_ID = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
DAY = 86_400.0

Answering = Callable[[Json, str], Json]  # (params, api key) -> message; raises ApiError


@dataclass
class Batch:
    """Batch with its requests, and a result line for each processed one."""

    id: str
    requests: list[Json]
    key: str
    created: float = field(default_factory=time.time)
    ended: float | None = None
    cancelled: float | None = None
    results: list[Json] = field(default_factory=list)

    def public(self, host: str) -> Json:
        """Return the API's batch object (types/messages/message_batch.py). Counts change only at the end."""
        kinds = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if self.ended:
            for row in self.results:
                kinds[row["result"]["type"]] += 1
        else:
            kinds["processing"] = len(self.requests)
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if self.ended else "canceling" if self.cancelled else "in_progress",
            "request_counts": kinds,
            "created_at": rfc3339(self.created),
            "expires_at": rfc3339(self.created + DAY),
            "ended_at": rfc3339(self.ended) if self.ended else None,
            "cancel_initiated_at": rfc3339(self.cancelled) if self.cancelled else None,
            "archived_at": None,
            "results_url": f"http://{host}/v1/messages/batches/{self.id}/results" if self.ended else None,
        }


class Batches:
    """Batches of this process, newest last."""

    def __init__(self, answering: Answering, delay: float) -> None:
        self._answering = answering
        self._delay = delay
        self._batches: dict[str, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def create(self, body: Json, key: str) -> Batch:
        """Create a batch. Raises 400 unless it is a list of {custom_id, params} with distinct ids."""
        requests = body.get("requests")
        if not isinstance(requests, list) or not 1 <= len(requests) <= MAX_REQUESTS:
            raise invalid(f"requests: Input should be a list of 1 to {MAX_REQUESTS} requests")
        seen: set[str] = set()
        for i, row in enumerate(requests):
            if not isinstance(row, dict) or not CUSTOM_ID.match(str(row.get("custom_id", ""))):
                raise invalid(f"requests.{i}.custom_id: String should match pattern '{CUSTOM_ID.pattern}'")
            if not isinstance(row.get("params"), dict):
                raise invalid(f"requests.{i}.params: Field required")
            if row["custom_id"] in seen:
                raise invalid(f"requests.{i}.custom_id: custom_id must be unique within a batch")
            seen.add(row["custom_id"])
        batch = Batch(next_id("msgbatch"), requests, key)
        self._batches[batch.id] = batch
        if len(self._batches) > MAX_BATCHES:
            del self._batches[next(iter(self._batches))]
        task = asyncio.get_running_loop().create_task(self._work(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch

    def get(self, batch_id: str) -> Batch:
        if batch_id not in self._batches:
            raise ApiError(404, f"Message batch {batch_id} not found")
        return self._batches[batch_id]

    def cancel(self, batch_id: str) -> Batch:
        batch = self.get(batch_id)
        if batch.ended:
            raise invalid(f"Batch {batch_id} has ended and cannot be canceled")
        batch.cancelled = batch.cancelled or time.time()
        return batch

    def delete(self, batch_id: str) -> Json:
        if not self.get(batch_id).ended:
            raise invalid(f"Batch {batch_id} is still being processed; cancel it first")
        del self._batches[batch_id]
        return {"id": batch_id, "type": "message_batch_deleted"}

    def page(self, query: dict[str, list[str]], host: str) -> Json:
        return paginate([b.public(host) for b in reversed(self._batches.values())], query)

    def results(self, batch_id: str) -> bytes:
        """Return the results as JSON lines. Raises 404 until the batch has ended."""
        batch = self.get(batch_id)
        if not batch.ended:
            raise ApiError(404, f"Batch {batch_id} has no available results yet")
        return b"".join(orjson.dumps(row) + b"\n" for row in batch.results)

    async def _work(self, batch: Batch) -> None:
        """Process requests one by one, yielding to live calls in between."""
        await asyncio.sleep(self._delay)
        for row in batch.requests:
            result: dict[str, Any] = {"type": "canceled"}
            if not batch.cancelled:
                result = self._result(row["params"], batch.key)
            batch.results.append({"custom_id": row["custom_id"], "result": result})
            await asyncio.sleep(0)
        batch.ended = time.time()

    def _result(self, params: Json, key: str) -> Json:
        try:
            return {"type": "succeeded", "message": self._answering(params, key)}
        except ApiError as error:
            return {"type": "errored", "error": error_body(error.status, error.message, next_id("req"))}
