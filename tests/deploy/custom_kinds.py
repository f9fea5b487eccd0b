"""JSON Schemas of the custom kinds that deploy/kubernetes uses, for the fields that it uses and no others.

Written by hand after the references of the Gateway API 1.2, the Prometheus Operator and the External Secrets Operator:
no published definition was at hand to judge by.
"""

from __future__ import annotations

from typing import Any

NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
PROMETHEUS_DURATION = {"type": "string", "pattern": "^[1-9][0-9]{0,3}(ms|s|m|h)$"}


def shape(required: str, optional: str = "", /, **fields: Any) -> dict[str, Any]:
    """Object with these fields and no others."""
    assert set(fields) == {*required.split(), *optional.split()}
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


def kind(version: str, spec: dict[str, Any]) -> dict[str, Any]:
    head = shape("name namespace", name=NAME, namespace=NAME)
    return shape(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind={"type": "string"},
        metadata=head,
        spec=spec,
    )


PARENT = shape("name namespace sectionName", name=NAME, namespace=NAME, sectionName=NAME)
PATH = shape("type value", type={"enum": ["Exact", "PathPrefix"]}, value={"type": "string", "pattern": "^/"})
RULE = shape(
    "matches timeouts backendRefs",
    matches=several(shape("path", path=PATH)),
    timeouts=shape("request backendRequest", request=DURATION, backendRequest=DURATION),
    backendRefs=several(shape("name port", name=NAME, port={"type": "integer", "minimum": 1})),
)
ENDPOINT = shape("port path interval", port=NAME, path={"type": "string"}, interval=PROMETHEUS_DURATION)
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
REMOTE = shape("key", key={"type": "string"})

CUSTOM_KINDS = {
    "HTTPRoute": kind(
        "gateway.networking.k8s.io/v1",
        shape(
            "parentRefs hostnames rules",
            parentRefs=several(PARENT),
            hostnames=several({"type": "string", "pattern": "^[a-z0-9.-]+$"}),
            rules=several(RULE),
        ),
    ),
    "ServiceMonitor": kind(
        "monitoring.coreos.com/v1",
        shape(
            "selector endpoints",
            "jobLabel",
            jobLabel={"type": "string"},
            selector=shape("matchLabels", matchLabels=LABELS),
            endpoints=several(ENDPOINT),
        ),
    ),
    "ExternalSecret": kind(
        "external-secrets.io/v1",
        shape(
            "refreshInterval secretStoreRef target data",
            refreshInterval=DURATION,
            secretStoreRef=shape(
                "kind name", kind={"enum": ["ClusterSecretStore", "SecretStore"]}, name=NAME
            ),
            target=shape(
                "name creationPolicy", name=NAME, creationPolicy={"enum": ["Owner", "Merge", "None"]}
            ),
            data=several(
                shape("secretKey remoteRef", secretKey={"type": "string"}, remoteRef=REMOTE),
            ),
        ),
    ),
}
