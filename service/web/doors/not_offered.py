"""Paths of OpenAI's and Anthropic's APIs that Slipway does not have: 404 in the dialect of the client that asks."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service.errors import NotOffered, SlipwayError
from service.web.anthropic.errors import error_response as anthropic_error
from service.web.openai.errors import error_response as openai_error
from service.web.problems import error_shape

blueprint = Blueprint("not_offered", __name__)
PATHS = (
    *("assistants", "audio", "batches", "chatkit", "complete", "completions", "containers", "conversations"),
    *("deployments", "dreams", "embeddings", "environments", "evals", "files", "fine_tuning", "images"),
    *("live", "memory_stores", "moderations", "organization", "organizations", "realtime", "skills"),
    *("threads", "tunnels", "uploads", "user_profiles", "vaults", "vector_stores", "videos"),
)  # below /v1
BELOW_OURS = ("/v1/responses/compact",)  # paths that a route of ours would take for an id
SHARED = ("/v1/agents", "/v1/sessions")  # paths of Slipway's own, which the vendors' hosted agents have too
HOSTED = (
    ("anthropic-beta", "managed-agents-"),
    ("openai-beta", "agents="),
)  # by which their clients are known


def refused(error: SlipwayError) -> Response:
    return anthropic_error(error) if "anthropic-version" in request.headers else openai_error(error)


for _path in PATHS:
    error_shape(blueprint, f"/v1/{_path}")(refused)


@blueprint.before_app_request
def refuse_before_routing() -> Response | None:
    """Refuse requests that are not meant for the routes of ours, such as for agents that a vendor hosts."""
    if request.path in BELOW_OURS:
        return refused(NotOffered(f"{request.method} {request.path} is not offered here."))
    if request.path.startswith(SHARED) and any(
        mark in request.headers.get(header, "") for header, mark in HOSTED
    ):
        return refused(NotOffered("Agents that the vendor hosts are not offered here."))
    return None
