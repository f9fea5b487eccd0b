"""HTTP routes of the offline model: Messages API, models, batches, and the control routes for tests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import orjson

from offline_model import answer, compose, conversation, faults, models, sending, token_estimate, validation
from offline_model.batches import Batches
from offline_model.caching import PromptCache
from offline_model.exchange import Exchange
from offline_model.faults import Control
from offline_model.settings import Settings
from offline_model.shapes import ApiError, Json, digest, error_body, invalid, next_id, rfc3339
from offline_model.stats import Call, Stats

JSON_TYPE = "application/json"
log = logging.getLogger("offline_model")
LIMITS = {
    "requests": 1_000_000,
    "tokens": 1_000_000_000,
    "input-tokens": 1_000_000_000,
    "output-tokens": 1_000_000_000,
}
Route = Callable[[Exchange, dict[str, str]], Awaitable[None] | None]


class Api:
    """Request handler with its settings, counters, prompt cache and batches."""

    def __init__(self, settings: Settings) -> None:
        self.control = Control(settings)
        self.stats = Stats()
        self.cache = PromptCache(settings.min_cache_tokens)
        self.batches = Batches(self._batch_item, settings.batch_delay_ms / 1000)
        self._limits: tuple[int, dict[str, str]] = (0, {})
        self._routes: dict[str, dict[str, Route]] = {
            "/health": {"GET": lambda x, h: self._json(x, h, {"status": "ok"})},
            "/stats": {"GET": lambda x, h: self._json(x, h, self.stats.public())},
            "/stats/reset": {"POST": self._reset},
            "/control": {
                "GET": lambda x, h: self._json(x, h, self.control.public()),
                "POST": self._set_control,
            },
            "/clock": {"POST": self._forward},
            "/v1/messages": {"POST": self._messages},
            "/v1/messages/count_tokens": {"POST": self._count},
            "/v1/models": {"GET": lambda x, h: self._json(x, h, models.page(x.request.query))},
            "/v1/messages/batches": {"GET": self._list_batches, "POST": self._create_batch},
        }

    async def handle(self, exchange: Exchange) -> None:
        """Handle one request; an ApiError becomes an error body of the Messages API."""
        headers = {"request-id": next_id("req")}
        try:
            route = self._find(exchange)
            if exchange.request.path.startswith("/v1/"):
                if not key_of(exchange):
                    raise ApiError(401, "x-api-key header is required")
                headers |= self._rate_limits()
            if exchange.request.too_large:
                raise ApiError(413, "Request exceeds the maximum size of 32 MB")
            pending = route(exchange, headers)
            if pending is not None:
                await pending
        except ApiError as error:
            self._refuse(exchange, error, headers)
        except Exception:
            log.exception("while answering %s %s", exchange.request.method, exchange.request.path)
            if exchange.started:
                exchange.close()
            else:
                self._refuse(
                    exchange, ApiError(500, "the offline model has a bug; its log has more"), headers
                )

    @staticmethod
    def _refuse(exchange: Exchange, error: ApiError, headers: dict[str, str]) -> None:
        body = error_body(error.status, error.message, headers["request-id"])
        exchange.send(error.status, orjson.dumps(body), headers | error.headers, JSON_TYPE)

    def _find(self, exchange: Exchange) -> Route:
        method, path = exchange.request.method, exchange.request.path.rstrip("/")
        methods = self._routes.get(path) or self._with_id(path)
        if methods is None:
            raise ApiError(404, f"Not found: {path}")
        if method not in methods:
            raise ApiError(405, f"Method Not Allowed: {method} {path}")
        return methods[method]

    def _with_id(self, path: str) -> dict[str, Route] | None:
        """Match routes that contain an id."""
        parts = path.split("/")[1:]
        if parts[:2] == ["v1", "models"] and len(parts) == 3:
            return {"GET": lambda x, h: self._model(x, h, parts[2])}
        if parts[:3] != ["v1", "messages", "batches"] or len(parts) not in (4, 5):
            return None
        batch_id, action = parts[3], parts[4] if len(parts) == 5 else ""
        batches = self.batches
        return {
            "": {
                "GET": lambda x, h: self._json(x, h, batches.get(batch_id).public(host_of(x))),
                "DELETE": lambda x, h: self._json(x, h, batches.delete(batch_id)),
            },
            "cancel": {"POST": lambda x, h: self._json(x, h, batches.cancel(batch_id).public(host_of(x)))},
            "results": {"GET": lambda x, h: x.send(200, batches.results(batch_id), h, "application/x-jsonl")},
        }.get(action)

    # messages

    async def _messages(self, exchange: Exchange, headers: dict[str, str]) -> None:
        """Serve POST /v1/messages; counts the outcome, also when the client disconnects."""
        body = validation.parse_json(exchange.request.body)
        metadata = body.get("metadata")
        user = metadata.get("user_id") if isinstance(metadata, dict) else None
        call = self.stats.begin(str(body.get("model")), body.get("stream") is True, user)
        outcome = "error:500"
        try:
            outcome = await self._answer(exchange, body, call, headers)
        except ApiError as error:
            outcome = f"error:{error.status}"
            raise
        except asyncio.CancelledError:  # only when the client disconnects
            outcome = "closed_early"
            raise
        finally:
            self.stats.end(call, outcome)

    async def _answer(self, exchange: Exchange, body: Json, call: Call, headers: dict[str, str]) -> str:
        model = validation.check_message(body)
        seed = digest(body)
        knobs = self.control.resolve(
            exchange.request.headers, conversation.last_user_text(body), body["model"], seed
        )
        stream = call.stream
        refusal = faults.refusal(knobs, stream)
        if refusal:
            raise refusal
        finished = self._finished(body, key_of(exchange), seed, model, knobs.tokens)
        return await sending.send(exchange, finished, knobs, call, headers, stream)

    def _finished(
        self, body: Json, key: str, seed: str, model: models.Model, exact: int | None
    ) -> compose.Answer:
        count = token_estimate.of_request(body)
        if count > model.context:
            raise invalid(f"prompt is too long: {count} tokens > {model.context} maximum")
        return compose.finish(answer.blocks(body, seed), body, self.cache.split(body, key), seed, exact)

    def _batch_item(self, params: Json, key: str) -> Json:
        """Answer one request of a batch. Fault markers apply; control and settings are for live calls only."""
        call = self.stats.begin(str(params.get("model")), False, None, batch=True)
        outcome = "error:500"
        try:
            model = validation.check_message(params)
            knobs = faults.from_text(conversation.last_user_text(params))
            refusal = faults.refusal(knobs, stream=False)
            if refusal:
                raise refusal
            finished = self._finished(params | {"_tier": "batch"}, key, digest(params), model, knobs.tokens)
            call.usage, outcome = finished.usage(), "ok"
            return finished.message()
        except ApiError as error:
            outcome = f"error:{error.status}"
            raise
        finally:
            self.stats.end(call, outcome)

    def _count(self, exchange: Exchange, headers: dict[str, str]) -> None:
        body = validation.parse_json(exchange.request.body)
        validation.check_message(body, counting=True)
        self.stats.totals["count_tokens"] += 1
        self._json(exchange, headers, {"input_tokens": token_estimate.of_request(body)})

    # models, batches, control

    def _model(self, exchange: Exchange, headers: dict[str, str], name: str) -> None:
        """Serve GET /v1/models/{id}; retired models are listed too."""
        entry = models.CATALOGUE.get(name.removeprefix("offline-")) or models.find(name)
        self._json(exchange, headers, entry.public() | {"id": name})

    def _create_batch(self, exchange: Exchange, headers: dict[str, str]) -> None:
        batch = self.batches.create(validation.parse_json(exchange.request.body), key_of(exchange))
        self._json(exchange, headers, batch.public(host_of(exchange)))

    def _list_batches(self, exchange: Exchange, headers: dict[str, str]) -> None:
        self._json(exchange, headers, self.batches.page(exchange.request.query, host_of(exchange)))

    def _set_control(self, exchange: Exchange, headers: dict[str, str]) -> None:
        self.control.set(validation.parse_json(exchange.request.body or b"{}"))
        self._json(exchange, headers, self.control.public())

    def _forward(self, exchange: Exchange, headers: dict[str, str]) -> None:
        seconds = validation.parse_json(exchange.request.body).get("forward")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
            raise invalid("forward: Input should be a number of seconds")
        self.cache.forward(seconds)
        self._json(exchange, headers, {"forward": seconds})

    def _reset(self, exchange: Exchange, headers: dict[str, str]) -> None:
        self.stats.reset()
        self._json(exchange, headers, self.stats.public())

    @staticmethod
    def _json(exchange: Exchange, headers: dict[str, str], value: Json) -> None:
        exchange.send(200, orjson.dumps(value), headers, JSON_TYPE)

    def _rate_limits(self) -> dict[str, str]:
        """Build the anthropic-ratelimit-* headers, with everything remaining; cached for a second."""
        now = int(time.time())
        if self._limits[0] != now:
            reset = rfc3339(now + 60)
            values: dict[str, str] = {}
            for name, limit in LIMITS.items():
                limits = {"limit": str(limit), "remaining": str(limit), "reset": reset}
                values |= {f"anthropic-ratelimit-{name}-{field}": value for field, value in limits.items()}
            self._limits = (now, values)
        return self._limits[1]


def key_of(exchange: Exchange) -> str:
    """Return the API key from either header, or an empty string."""
    headers = exchange.request.headers
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return (token.strip() if scheme.lower() == "bearer" else "") or headers.get("x-api-key", "").strip()


def host_of(exchange: Exchange) -> str:
    return exchange.request.headers.get("host", "127.0.0.1")
