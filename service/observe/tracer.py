"""Construction of the tracer of a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from service import __version__
from service.observe.tracing import OFF, Tracer

if TYPE_CHECKING:
    from config.observe import Observe


def build(settings: Observe, about: Mapping[str, str], count: Callable[[str, int], None]) -> Tracer:
    """Build the tracer; without an address for traces it is off, and nothing of OpenTelemetry is imported.

    `about` are attributes of the process, `count` see `OtelTracer`.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return OFF
    from service.observe.otel import Export, OtelTracer

    own = {"service.name": settings.otel_service_name, "service.version": __version__}
    export = Export(
        endpoint=settings.otel_exporter_otlp_endpoint,
        headers=_pairs(settings.otel_exporter_otlp_headers.get_secret_value()),
        seconds=settings.otel_exporter_otlp_timeout,
        gzip=settings.otel_exporter_otlp_compression == "gzip",
        certificate=settings.otel_exporter_otlp_certificate,
        resource={**own, **about, **_pairs(settings.otel_resource_attributes)},
        ratio=settings.otel_traces_sampler_arg,
        follows=settings.otel_traces_sampler == "parentbased_traceidratio",
        content=settings.otel_capture_content,
    )
    return OtelTracer(export, count)


def _pairs(text: str) -> dict[str, str]:
    """Parse `name=value` pairs as OpenTelemetry has them: separated by commas, values percent-encoded."""
    pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}
