"""Names of attributes of spans: OpenTelemetry's conventions for generative AI, v0.1.0, for HTTP, and our own.

https://github.com/open-telemetry/semantic-conventions-genai. The constants of `opentelemetry-semantic-conventions` are
of an earlier version, and marked as moved.
"""

from __future__ import annotations

# Operations: values of OPERATION, and the first words of names of spans.
CHAT, INVOKE_AGENT, EXECUTE_TOOL = "chat", "invoke_agent", "execute_tool"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT, AGENT_VERSION = "gen_ai.agent.name", "gen_ai.agent.version"
CONVERSATION = "gen_ai.conversation.id"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
STREAM = "gen_ai.request.stream"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
TOOL, TOOL_CALL, TOOL_TYPE = "gen_ai.tool.name", "gen_ai.tool.call.id", "gen_ai.tool.type"
# Content, only with OTEL_CAPTURE_CONTENT.
INPUT_MESSAGES, OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
TOOL_ARGUMENTS, TOOL_RESULT = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"

ERROR_TYPE = "error.type"
HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS = "http.request.method", "http.route", "http.response.status_code"
SERVER_ADDRESS = "server.address"
USER = "user.id"

RUN, ATTEMPT, STATUS = "slipway.run.id", "slipway.run.attempt", "slipway.run.status"
DOOR, WORKSPACE = "slipway.door", "slipway.workspace.id"
STEP, STEP_KIND, BRANCH = "slipway.step", "slipway.step.kind", "slipway.branch"
CACHE, COST, SCHEDULE = "slipway.cache", "slipway.cost_usd", "slipway.schedule.id"
REQUEST_ID = "slipway.request.id"
MODEL_ATTEMPT = "slipway.model.attempt"
LEFT_BY = "slipway.left_by"  # class of what a run was left by, such as a wait for an approval
DELIVERY, DELIVERY_ATTEMPT = "slipway.webhook.kind", "slipway.webhook.attempt"

# Names of the conventions for providers that have others here.
_PROVIDERS = {"": "anthropic", "bedrock": "aws.bedrock", "mantle": "aws.bedrock", "vertex": "gcp.vertex_ai"}


def provider(name: str) -> str:
    return _PROVIDERS.get(name, name)
