"""The trace that a producer is in, for its mails. Only where the setting `otel` is on: nothing else imports this."""

from __future__ import annotations

from collections.abc import Callable

from streamq.errors import SettingsError

__all__ = ["tracer_of_producers"]


def tracer_of_producers() -> Callable[[], bytes]:
    """What gives the current span as a `traceparent`, b"" where there is none. Raises `SettingsError` without
    OpenTelemetry's API."""
    try:
        from opentelemetry import trace
    except ImportError:
        raise SettingsError("otel: needs opentelemetry: install streamq with its extra `otel`") from None

    def current() -> bytes:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return b""
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode()

    return current
