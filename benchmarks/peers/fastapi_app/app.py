"""What a team would write in an afternoon: FastAPI, the official SDK, a JWT check, a limit and a cache in Redis.

It keeps no runs, holds no money, sees through no crash. `uvicorn app:app --workers 2`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anthropic
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

app = FastAPI()
store = redis.from_url(os.environ["REDIS_URL"], max_connections=2000)
claude = anthropic.AsyncAnthropic(max_retries=2)


class Question(BaseModel):
    input: str
    max_tokens: int = 1024


def user(request: Request) -> str:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        claims = jwt.decode(token, SECRET, ["HS256"], audience="bench", issuer="bench")
    except jwt.InvalidTokenError:
        raise HTTPException(401, "This token is not valid") from None
    return str(claims["sub"])


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
    await store.set(key, answer, ex=TTL)
    return Response(answer, media_type="application/json", headers={"X-Cache": "miss"})


@app.post("/stream")
async def stream(question: Question, who: Annotated[str, Depends(user)]) -> StreamingResponse:
    key = "stream:" + key_of(question)
    kept = await admit(who, key)
    return StreamingResponse(told(question, key, kept), media_type="text/event-stream")


async def told(question: Question, key: str, kept: bytes | None) -> AsyncIterator[str]:
    """Server-sent events: one for each delta, and a last one with the whole text.

    `create(stream=True)`, the faster of the SDK's two ways: `messages.stream` costs about twice as much.
    """
    if kept:
        yield event("delta", {"text": kept.decode()})
        yield event("done", {"output": kept.decode()})
        return
    parts = []
    async for found in await claude.messages.create(**asked(question), stream=True):
        if found.type == "content_block_delta" and found.delta.type == "text_delta":
            parts.append(found.delta.text)
            yield event("delta", {"text": found.delta.text})
    text = "".join(parts)
    await store.set(key, text, ex=TTL)
    yield event("done", {"output": text})


def event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
