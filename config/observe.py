"""Define the settings of traces, which are OpenTelemetry's by its own names, and of log lines of requests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from config import checks
from config.elsewhere import Elsewhere


class Observe(Elsewhere):
    """Fields of `config.base.Settings` about traces and log lines, and their validators."""

    otel_exporter_otlp_endpoint: str = Field(
        "",
        repr=False,
        description="Address to which traces are sent by OTLP over HTTP, such as `http://collector:4318`, to which "
        "`/v1/traces` is added; see docs/tracing.md; empty: tracing is off, and nothing of it is loaded",
    )
    otel_exporter_otlp_headers: SecretStr = Field(
        SecretStr(""),
        description="Headers that are sent with traces: `name=value`, separated by commas, values percent-encoded",
    )
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = Field(
        "http/protobuf", description="Protocol by which traces are sent; the only one there is here"
    )
    otel_exporter_otlp_timeout: float = Field(
        10.0,
        gt=0,
        le=60,
        description="Longest time for sending a batch of spans, its repetitions included, in seconds",
    )
    otel_exporter_otlp_compression: Literal["none", "gzip"] = Field(
        "none", description="Compression of what is sent"
    )
    otel_exporter_otlp_certificate: str = Field(
        "", description="File of the certificates that the address is trusted by; empty: the usual ones"
    )
    otel_service_name: str = Field("slipway", min_length=1, description="`service.name` of all spans")
    otel_resource_attributes: str = Field(
        "", description="Further attributes of all spans: `name=value`, separated by commas"
    )
    otel_traces_sampler: Literal["traceidratio", "parentbased_traceidratio"] = Field(
        "traceidratio",
        description="What decides whether a request is traced: the share of OTEL_TRACES_SAMPLER_ARG, or the client's "
        "`traceparent` first, which lets clients have everything traced",
    )
    otel_traces_sampler_arg: float = Field(
        0.01, ge=0, le=1, description="Share of requests that are traced, from 0 to 1"
    )
    otel_capture_content: bool = Field(
        False,
        description="Put prompts, answers, arguments and results of tools into traces, as guardrails leave them",
    )

    log_slow_seconds: float = Field(
        10.0,
        gt=0,
        description="Seconds after which the log line of a request says `slow`; to a stream's beginning",
    )
    log_hits_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the log lines of answers from the cache that are written, from 0 to 1",
    )

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _endpoint(cls, url: str) -> str:
        return checks.http_url(url)

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _pairs_in_secret(cls, text: SecretStr) -> SecretStr:
        _check_pairs(text.get_secret_value())
        return text

    @field_validator("otel_resource_attributes")
    @classmethod
    def _pairs(cls, text: str) -> str:
        _check_pairs(text)
        return text


def _check_pairs(text: str) -> None:
    for pair in filter(str.strip, text.split(",")):
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip() and pair.isascii() and pair.isprintable()):
            raise ValueError("must be name=value pairs, separated by commas")
