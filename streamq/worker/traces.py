"""A span for each attempt, in the trace of whoever queued the mail (OpenTelemetry; extra `otel`, setting `otel`).

Made when the attempt is over, with the times that it had: nothing is carried along meanwhile, and where nobody asks for
spans none of this is imported. Attributes are those of the semantic conventions for messaging, where they have one; no
recipient, no header, no text stands in them but a refusal's reply, in which `pii = "hash"` hides addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import orjson

from streamq import __version__
from streamq.errors import SettingsError
from streamq.keys import GROUP, Keys
from streamq.mail.event import hide_addresses
from streamq.mail.trace import read_traceparent
from streamq.settings import Settings
from streamq.smtp.letter import Action, Report
from streamq.worker.hand import Delivery
from streamq.worker.tally import outcome_of

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError:
    raise SettingsError("STREAMQ_OTEL: needs opentelemetry: install streamq with its extra `otel`") from None

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Traces"]

log = logging.getLogger("streamq.traces")

CLOSE_SECONDS = 5.0  # for spans that an exporter has not taken yet: a worker that stops waits for no collector
EXPORTERS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}  # by OTEL_EXPORTER_OTLP_PROTOCOL
SYSTEM = "redis"  # the conventions' list has no name for it, and takes others
MALFORMED = "streamq.traceparent.malformed"


class Traces:
    """Of one worker. `provider`: whose spans they are; None: that of the program where it has set one (a worker that
    `opentelemetry-instrument` starts), else one of our own, which the standard's OTEL_* variables configure. `now_ns`
    is this machine's clock. Raises `SettingsError` where an exporter is asked for that is not installed, or a variable
    is one that OpenTelemetry cannot do with."""

    def __init__(
        self,
        settings: Settings,
        consumer: str,
        provider: TracerProvider | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._own: TracerProvider | None = None
        known: trace.TracerProvider
        known, self._own = (provider, None) if provider is not None else _found(consumer)
        self._tracer = known.get_tracer("streamq", __version__)
        self._now_ns = now_ns
        self._hides = settings.pii == "hash"
        keys = Keys(settings.queue)
        self.streams = [keys.stream(name) for name in settings.priorities]  # by the digit of an entry
        self._fixed = {
            "messaging.system": SYSTEM,
            "messaging.operation.type": "process",
            "messaging.operation.name": "deliver",
            "messaging.consumer.group.name": GROUP,
            "messaging.client.id": consumer,
        }
        self._told = self._failed = False

    def report(self, delivery: Delivery, report: Report) -> None:
        """A courier's report: an attempt, unless the letter was parked unseen. A provider that fails costs its span."""
        if not report.tried:
            return
        try:
            self._span(delivery, report)
        except Exception as error:  # noqa: BLE001 - a sampler, or a processor, of somebody's own
            if not self._failed:
                self._failed = True
                log.warning("no span of %s, nor of others like it: %s: %s", delivery.entry, type(error).__name__, error)

    def _span(self, delivery: Delivery, report: Report) -> None:
        end_ns = self._now_ns()
        stream = self.streams[int(delivery.entry[0])]
        attributes = {**self._fixed, "messaging.destination.name": stream, **_facts(delivery, report)}
        span = self._tracer.start_span(
            f"deliver {stream}",
            self._context(delivery, attributes),
            SpanKind.CONSUMER,
            attributes,
            start_time=end_ns - report.duration_ms * 1_000_000,
        )
        if report.action is not Action.SENT:
            reply = hide_addresses(report.reply) if self._hides else report.reply
            span.set_status(Status(StatusCode.ERROR, reply or report.klass))
        span.end(end_ns)

    def _context(self, delivery: Delivery, attributes: dict[str, str | int]) -> Context:
        """The producer's, by the mail's `traceparent`; without a good one the span begins a trace."""
        event = delivery.mail.event
        text = _traceparent(event) if b'"traceparent":' in event else ""
        if not text:
            return Context()
        found = read_traceparent(text)
        if found is None:
            attributes[MALFORMED] = text
            if not self._told:  # a producer that does so does it with each mail
                self._told = True
                log.warning("%s: its traceparent is none, and no trace is taken from it: %r", delivery.entry, text)
            return Context()
        trace_id, span_id, flags = found
        parent = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & TraceFlags.SAMPLED))
        return trace.set_span_in_context(NonRecordingSpan(parent), Context())

    async def close(self) -> None:
        """Hands what is left to the exporter, for some seconds at most."""
        if self._own is None:
            return
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        own = self._own

        def shut() -> None:
            own.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waited for so long
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await done.wait()
        except TimeoutError:
            log.warning("the last spans may be lost: their exporter did not take them within %g s", CLOSE_SECONDS)


def _facts(delivery: Delivery, report: Report) -> dict[str, str | int]:
    """Of one attempt; only what there is."""
    mail = delivery.mail
    sent = report.action is Action.SENT
    known: dict[str, str | int | None] = {
        "messaging.message.id": mail.id or delivery.entry,
        "messaging.message.body.size": mail.size,
        "error.type": None if sent else report.klass,
        "streamq.entry": delivery.entry,
        "streamq.attempt": delivery.attempts + 1,
        "streamq.outcome": outcome_of(report),
        "streamq.class": report.klass,
        "streamq.route": delivery.way,
        "streamq.site": delivery.site,
        "streamq.tenant": mail.tenant,
        "streamq.smtp.peer": report.peer,
        "streamq.smtp.stage": str(report.stage),
        "streamq.smtp.reply_code": report.code,
        "streamq.smtp.enhanced_code": report.enhanced,
        "streamq.smtp.tls": report.tls,
    }
    return {name: value for name, value in known.items() if value}


def _traceparent(event: bytes) -> str:
    try:
        found = orjson.loads(b"{%b}" % event).get("traceparent", "")
    except orjson.JSONDecodeError:  # metadata that is nested deeper than orjson reads
        return ""
    return str(found)


def _found(consumer: str) -> tuple[trace.TracerProvider, TracerProvider | None]:
    """The program's, or one of our own, which then is the second, too. Raises `SettingsError`."""
    try:
        return _asked(consumer)
    except SettingsError:
        raise
    except Exception as wrong:  # noqa: BLE001 - each part of the SDK, and each plugin, has its own
        raise SettingsError(_blamed(consumer, wrong)) from None


def _asked(consumer: str) -> tuple[trace.TracerProvider, TracerProvider | None]:
    known = trace.get_tracer_provider()
    if not isinstance(known, trace.ProxyTracerProvider):
        return known, None
    own = _provider(consumer)
    return own, own


def _blamed(consumer: str, wrong: Exception) -> str:
    """Which variable it was: the one without which all is well. What the SDK says names it now and then only."""
    names = sorted(name for name in os.environ if name.startswith("OTEL_"))
    for name in names:
        value = os.environ.pop(name)
        try:
            _, own = _asked(consumer)
        except Exception:  # noqa: BLE001 - it is not this one, or not it alone
            continue
        finally:
            os.environ[name] = value
        if own is not None:
            own.shutdown()
        shown = "***" if "HEADERS" in name else value[:80]
        return f"{name}: {str(wrong) or type(wrong).__name__} (got {shown!r})"
    return f"STREAMQ_OTEL: {type(wrong).__name__}: {wrong} (set are {', '.join(names) or 'no OTEL_* variables'})"


def _provider(consumer: str) -> TracerProvider:
    """What OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_*, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_RESOURCE_ATTRIBUTES and
    OTEL_SERVICE_NAME say. Raises `SettingsError`."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {"service.instance.id": consumer}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        own["service.name"] = "streamq"
    made = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
    for name in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        if (exporter := _exporter(name.strip())) is not None:
            made.add_span_processor(BatchSpanProcessor(exporter))
    return made


def _exporter(name: str) -> SpanExporter | None:
    if name == "none":
        return None
    if name == "otlp":
        said = [os.environ.get(f"OTEL_EXPORTER_OTLP_{part}PROTOCOL") for part in ("TRACES_", "")]
        protocol = next(filter(None, said), "http/protobuf")
        name = EXPORTERS.get(protocol, protocol)
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        exporter: SpanExporter = found.load()()
        return exporter
    raise SettingsError(f"OTEL_TRACES_EXPORTER: no exporter of this name is installed (got {name!r})")
