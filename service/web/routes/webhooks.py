"""Webhook secret, which signs deliveries; see `service.webhooks`."""

from __future__ import annotations

from flask import Blueprint, Response

from service import errors
from service.web.admission import guard
from service.web.current import current_caller, services
from service.web.openapi import api
from service.web.schemas import Shape, json_response

blueprint = Blueprint("webhooks", __name__)


class WebhookSecret(Shape):
    secret: str


@blueprint.get("/v1/webhooks/secret")
@api(
    "Get the secret that signs the caller's webhooks",
    returns={200: WebhookSecret},
    errors=[errors.Forbidden],
    tag="Agents",
)
@guard()
def webhook_secret() -> Response:
    return json_response({"secret": services().webhooks.secret_of(current_caller().user_id)})
