"""What a team would write in an afternoon: FastAPI, the official SDK, a JWT check, a limit and a cache in Redis.

It holds no money and sees through no crash. With DATABASE_URL its users are in PostgreSQL, and each answer of the model
becomes a row there; without, it keeps nothing. `uvicorn app:app --workers 2`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anthropic
import asyncpg
import jwt
import redis.asyncio as redis
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

SECRET = os.environ["SECRET_KEY"]
LIMIT = int(os.environ["LIMIT_PER_MINUTE"])
MODEL = "claude-haiku-5-5"
PROMPT = "You are a helpful assistant at work: you answer questions, improve texts, and explain things."
TTL = 3600  # seconds an answer stays in the cache

TABLES = """
SELECT pg_advisory_xact_lock(1);  -- all workers start at once
CREATE TABLE IF NOT EXISTS users (id text PRIMARY KEY, active boolean NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL REFERENCES users,
    question text NOT NULL,
    answer text NOT NULL,
    input_tokens integer NOT NULL,
    output_tokens integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS answers_of_a_user ON answers (user_id, id);
INSERT INTO users VALUES ('ada', true) ON CONFLICT DO NOTHING;
"""
KEEP = (
    "INSERT INTO answers (user_id, question, answer, input_tokens, output_tokens) VALUES ($1, $2, $3, $4, $5)"
)
database: asyncpg.Pool | None = None


async def as_it_is(_: asyncpg.Connection) -> None:
    """Leave a connection of the pool as it is: no session state is set, and asyncpg's own reset is a trip more."""


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    global database
    if not (url := os.environ.get("DATABASE_URL")):
        yield
        return
    async with asyncpg.create_pool(url, min_size=2, max_size=10, reset=as_it_is) as database:
        await database.execute(TABLES)
        yield


app = FastAPI(lifespan=lifespan)
store = redis.from_url(os.environ["REDIS_URL"], max_connections=2000)
claude = anthropic.AsyncAnthropic(max_retries=2)


class Question(BaseModel):
    input: str
    max_tokens: int = 1024


async def user(request: Request) -> str:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        claims = jwt.decode(token, SECRET, ["HS256"], audience="bench", issuer="bench")
    except jwt.InvalidTokenError:
        raise HTTPException(401, "This token is not valid") from None
    who = str(claims["sub"])
    if database and not await database.fetchval("SELECT active FROM users WHERE id = $1", who):
        raise HTTPException(401, "There is no such user")
    return who


def key_of(question: Question) -> str:
    return "answer:" + hashlib.sha256(question.model_dump_json().encode()).hexdigest()


async def admit(who: str, key: str) -> bytes | None:
    """The cached answer, in the round trip that counts the request. Raises 429."""
    window = f"limit:{who}:{int(time.time()) // 60}"
    async with store.pipeline(transaction=False) as pipe:
        counted, _, kept = await pipe.incr(window).expire(window, 60).get(key).execute()
    if counted > LIMIT:
        raise HTTPException(429, "Too many requests", {"Retry-After": "60"})
    return kept


async def keep(who: str, question: Question, text: str, usage: tuple[int, int]) -> None:
    if database:
        await database.execute(KEEP, who, question.input, text, *usage)


def asked(question: Question) -> dict[str, Any]:
    messages = [{"role": "user", "content": question.input}]
    return {"model": MODEL, "max_tokens": question.max_tokens, "system": PROMPT, "messages": messages}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/invoke")
async def invoke(question: Question, who: Annotated[str, Depends(user)]) -> Response:
    key = key_of(question)
    if kept := await admit(who, key):
        return Response(kept, media_type="application/json", headers={"X-Cache": "hit"})
    message = await claude.messages.create(**asked(question))
    text = "".join(block.text for block in message.content if block.type == "text")
    answer = json.dumps({"output": text, "usage": message.usage.model_dump(mode="json")}).encode()
    await keep(who, question, text, (message.usage.input_tokens, message.usage.output_tokens))
    await store.set(key, answer, ex=TTL)
    return Response(answer, media_type="application/json", headers={"X-Cache": "miss"})


@app.post("/stream")
async def stream(question: Question, who: Annotated[str, Depends(user)]) -> StreamingResponse:
    key = "stream:" + key_of(question)
    kept = await admit(who, key)
    unbuffered = {"X-Accel-Buffering": "no"}
    return StreamingResponse(
        told(who, question, key, kept), headers=unbuffered, media_type="text/event-stream"
    )


async def told(who: str, question: Question, key: str, kept: bytes | None) -> AsyncIterator[str]:
    """Server-sent events: one for each delta, and a last one with the whole text.

    `create(stream=True)`, the faster of the SDK's two ways: `messages.stream` costs about twice as much.
    """
    if kept:
        yield event("delta", {"text": kept.decode()})
        yield event("done", {"output": kept.decode()})
        return
    parts, taken, given = [], 0, 0
    async for found in await claude.messages.create(**asked(question), stream=True):
        if found.type == "content_block_delta" and found.delta.type == "text_delta":
            parts.append(found.delta.text)
            yield event("delta", {"text": found.delta.text})
        elif found.type == "message_start":
            taken = found.message.usage.input_tokens
        elif found.type == "message_delta":
            given = found.usage.output_tokens
    text = "".join(parts)
    await keep(who, question, text, (taken, given))
    await store.set(key, text, ex=TTL)
    yield event("done", {"output": text})


def event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
