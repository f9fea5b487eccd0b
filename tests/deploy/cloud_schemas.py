"""JSON Schemas of the files for Cloud Run and Azure Container Apps, for the fields that they use and no others.

Written by hand after the references of the two clouds, whose own tools cannot check a file without an account.
"""

from __future__ import annotations

from typing import Any

from tests.deploy.custom_kinds import NAME, several, shape

TEXT = {"type": "string"}
WHOLE = {"type": "integer", "minimum": 1}


def some(**fields: Any) -> dict[str, Any]:
    """Object with any of these fields and no others."""
    return {"type": "object", "properties": fields, "additionalProperties": False}


def one(*shapes: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": list(shapes)}


ASKED = shape("path port", path={"enum": ["/health", "/ready"]}, port=WHOLE)
PROBE = {"httpGet": ASKED, "periodSeconds": WHOLE, "timeoutSeconds": WHOLE, "failureThreshold": WHOLE}
RUN_ENV = one(
    shape("name value", name=TEXT, value=TEXT),
    shape(
        "name valueFrom",
        name=TEXT,
        valueFrom=shape("secretKeyRef", secretKeyRef=shape("name key", name=NAME, key={"const": "latest"})),
    ),
)
RUN_CONTAINER = some(
    name=NAME,
    image=TEXT,
    command=several(TEXT),
    ports=several(shape("name containerPort", name={"enum": ["http1", "h2c"]}, containerPort=WHOLE)),
    env=several(RUN_ENV),
    startupProbe=some(**PROBE),
    livenessProbe=some(**PROBE),
    resources=shape("limits", limits=shape("cpu memory", cpu=TEXT, memory=TEXT)),
)
# Annotations are text, numbers and JSON too.
RUN_NOTES = shape(
    "annotations",
    annotations={
        "type": "object",
        "additionalProperties": TEXT,
        "propertyNames": {"pattern": "^(autoscaling.knative.dev|run.googleapis.com)/[A-Za-z0-9-]+$"},
    },
)
RUN_METADATA = shape("name", name=NAME)
RUN_SERVICE = shape(
    "apiVersion kind metadata spec",
    apiVersion={"const": "serving.knative.dev/v1"},
    kind={"const": "Service"},
    metadata=RUN_METADATA,
    spec=shape(
        "template",
        template=shape(
            "metadata spec",
            metadata=RUN_NOTES,
            spec=shape(
                "containerConcurrency timeoutSeconds serviceAccountName containers",
                containerConcurrency={"type": "integer", "minimum": 1, "maximum": 1000},
                timeoutSeconds={"type": "integer", "minimum": 1, "maximum": 3600},
                serviceAccountName=TEXT,
                containers=several(RUN_CONTAINER),
            ),
        ),
    ),
)
RUN_JOB = shape(
    "apiVersion kind metadata spec",
    apiVersion={"const": "run.googleapis.com/v1"},
    kind={"const": "Job"},
    metadata=RUN_METADATA,
    spec=shape(
        "template",
        template=shape(
            "metadata spec",
            metadata=RUN_NOTES,
            spec=shape(
                "taskCount template",
                taskCount=WHOLE,
                template=shape(
                    "spec",
                    spec=shape(
                        "maxRetries timeoutSeconds serviceAccountName containers",
                        maxRetries=WHOLE,
                        timeoutSeconds=WHOLE,
                        serviceAccountName=TEXT,
                        containers=several(RUN_CONTAINER),
                    ),
                ),
            ),
        ),
    ),
)

AZURE_ENV = one(
    shape("name value", name=TEXT, value=TEXT), shape("name secretRef", name=TEXT, secretRef=NAME)
)
AZURE_CONTAINER = some(
    name=NAME,
    image=TEXT,
    command=several(TEXT),
    env=several(AZURE_ENV),
    probes=several(some(type={"enum": ["Startup", "Liveness", "Readiness"]}, **PROBE)),
    resources=shape("cpu memory", cpu={"type": "number"}, memory={"type": "string", "pattern": "Gi$"}),
)
AZURE_SECRET = shape(
    "name identity keyVaultUrl",
    name=NAME,
    identity=TEXT,
    keyVaultUrl={"type": "string", "pattern": "^https://"},
)
AZURE_TEMPLATE = some(
    terminationGracePeriodSeconds={"type": "integer", "minimum": 0, "maximum": 600},
    containers=several(AZURE_CONTAINER),
    scale=shape(
        "minReplicas maxReplicas rules",
        minReplicas=WHOLE,
        maxReplicas=WHOLE,
        rules=several(
            shape(
                "name http",
                name=NAME,
                http=shape("metadata", metadata=shape("concurrentRequests", concurrentRequests=TEXT)),
            )
        ),
    ),
)
AZURE_CONFIGURATION = some(
    activeRevisionsMode={"const": "Single"},
    ingress=shape(
        "external targetPort transport allowInsecure",
        external={"type": "boolean"},
        targetPort=WHOLE,
        transport={"enum": ["http", "auto", "http2"]},
        allowInsecure={"const": False},
    ),
    registries=several(shape("server identity", server=TEXT, identity=TEXT)),
    secrets=several(AZURE_SECRET),
    triggerType={"const": "Manual"},
    manualTriggerConfig=shape(
        "parallelism replicaCompletionCount", parallelism=WHOLE, replicaCompletionCount=WHOLE
    ),
    replicaTimeout=WHOLE,
    replicaRetryLimit=WHOLE,
)


def azure(kind: str) -> dict[str, Any]:
    return shape(
        "type location identity properties",
        type={"const": f"Microsoft.App/{kind}"},
        location=NAME,
        identity=shape(
            "type userAssignedIdentities",
            type={"const": "UserAssigned"},
            userAssignedIdentities={"type": "object"},
        ),
        properties=shape(
            "environmentId configuration template",
            environmentId=TEXT,
            configuration=AZURE_CONFIGURATION,
            template=AZURE_TEMPLATE,
        ),
    )


SCHEMAS = {
    "cloud-run/service.yaml": RUN_SERVICE,
    "cloud-run/migrate.yaml": RUN_JOB,
    "azure-container-apps/app.yaml": azure("containerApps"),
    "azure-container-apps/migrate.yaml": azure("jobs"),
}
