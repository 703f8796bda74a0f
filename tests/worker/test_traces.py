"""Traces, from the producer's span to the relay's reply: real clients, a real worker, the SDK's own exporters."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from client.faces import letter, opener
from crew import Crew, crew, rules_of
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from streamq import Recipient
from streamq.errors import SettingsError
from streamq.settings import load_settings
from streamq.worker import Worker

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BUSY = '[[rule]]\nmatch = "bob@*"\nstage = "rcpt"\nreply = "450 4.2.1 bob@example.net is busy"\ntimes = 2\n'


class Recorded:
    """A provider whose spans stay in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    async def worker(self, c: Crew, **settings: Any) -> Worker:
        known = {"relay": c.sink.url, "retry": "50ms", "jitter": 0, **settings}
        return await c.started(Worker(load_settings(**known), c.url, tracer_provider=self.provider))


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def above(span: ReadableSpan) -> tuple[int, int]:
    """Its trace, and the span that it is a part of."""
    assert span.context is not None
    return span.context.trace_id, span.parent.span_id if span.parent else 0


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_a_delivery_is_part_of_its_producers_trace(
    server_url: str, face: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMQ_OTEL", "1")
    seen = Recorded()
    async with crew(server_url) as c, opener(face)(server_url) as client:
        with seen.provider.get_tracer("shop").start_as_current_span("order") as order:
            await client.send(letter("a1", priority="high"))
        await seen.worker(c)
        [event] = await c.until("email.relayed")
    there = order.get_span_context()
    producer, delivery = seen.spans
    assert producer.name == "order"
    assert delivery.context is not None
    assert above(delivery) == (there.trace_id, there.span_id)
    assert event["traceparent"] == f"00-{there.trace_id:032x}-{there.span_id:016x}-{there.trace_flags:02x}"
    assert (delivery.name, delivery.kind) == ("deliver {streamq}:high", SpanKind.CONSUMER)
    assert delivery.status.status_code is StatusCode.UNSET
    known = facts(delivery)
    assert known.pop("messaging.client.id").count("-") == 2
    assert known.pop("messaging.message.body.size") > 0
    assert known.pop("streamq.smtp.peer").startswith("127.0.0.1")
    assert known == {
        "messaging.system": "redis",
        "messaging.operation.type": "process",
        "messaging.operation.name": "deliver",
        "messaging.consumer.group.name": "streamq",
        "messaging.destination.name": "{streamq}:high",
        "messaging.message.id": "a1",
        "streamq.entry": event["entry"],
        "streamq.attempt": 1,
        "streamq.outcome": "relayed",
        "streamq.class": event["class"],
        "streamq.route": "relay",
        "streamq.site": "example.net",
        "streamq.smtp.stage": "dot",
        "streamq.smtp.reply_code": 250,
        "streamq.smtp.enhanced_code": "2.0.0",
    }
    assert delivery.start_time is not None
    assert delivery.end_time is not None
    assert delivery.end_time - delivery.start_time == event["duration_ms"] * 1_000_000


async def test_each_attempt_has_a_span(server_url: str, tmp_path: Path) -> None:
    seen = Recorded()
    async with crew(server_url, rules=rules_of(tmp_path, BUSY)) as c:
        await seen.worker(c, pii="hash")
        await c.add(id="a1", traceparent=f"00-{TRACE}-{SPAN}-01")
        await c.until("email.relayed")
    assert [above(span) for span in seen.spans] == [(int(TRACE, 16), int(SPAN, 16))] * 3
    known = [facts(span) for span in seen.spans]
    assert [(one["streamq.attempt"], one["streamq.outcome"]) for one in known] == [
        *((1, "deferred"), (2, "deferred"), (3, "relayed"))
    ]
    assert [one.get("streamq.smtp.reply_code") for one in known] == [450, 450, 250]
    first, _, last = seen.spans
    assert first.status.status_code is StatusCode.ERROR
    assert known[0]["error.type"] == known[0]["streamq.class"]
    assert (first.status.description or "").endswith(" is busy")
    assert "bob@" not in str([span.to_json() for span in seen.spans])  # pii = "hash"
    assert (last.status.status_code, "error.type" in known[2]) == (StatusCode.UNSET, False)


async def test_children_are_of_their_mails_trace(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMQ_OTEL", "1")
    seen = Recorded()
    async with crew(server_url) as c, opener("async")(server_url) as client:
        await seen.worker(c)
        with seen.provider.get_tracer("shop").start_as_current_span("campaign") as campaign:
            known = {"to": None, "recipients": [Recipient(to=f"b{n}@example.net") for n in range(5)]}
            await client.send(letter("news", **known))
        await c.until("email.relayed", many=5)
    there = campaign.get_span_context()
    spans = [span for span in seen.spans if span.name != "campaign"]
    assert [above(span) for span in spans] == [(there.trace_id, there.span_id)] * 5
    assert {facts(span)["messaging.message.id"] for span in spans} == {f"news#{n}" for n in range(1, 6)}


async def test_a_trace_that_is_not_sampled_stays_so(server_url: str) -> None:
    seen = Recorded()
    async with crew(server_url) as c:
        await seen.worker(c)
        await c.add(traceparent=f"00-{TRACE}-{SPAN}-00")
        await c.until("email.relayed")
    assert seen.spans == []


async def test_what_is_no_traceparent_is_said_and_begins_a_trace(
    server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: whose producer does so does it with each mail. One in the metadata is none of the mail's."""
    seen = Recorded()
    async with crew(server_url) as c:
        await seen.worker(c)
        with caplog.at_level(logging.WARNING, "streamq.traces"):
            for n in range(2):
                await c.add(id=f"a{n}", traceparent="00-wrong")
            await c.add(id="b", metadata=f'{{"traceparent":"00-{TRACE}-{SPAN}-01"}}')
            await c.until("email.relayed", many=3)
    assert [span.parent for span in seen.spans] == [None] * 3
    assert len({above(span)[0] for span in seen.spans}) == 3
    by_id = {facts(span)["messaging.message.id"]: facts(span) for span in seen.spans}
    malformed = "streamq.traceparent.malformed"
    assert [by_id[name].get(malformed) for name in ("a0", "a1", "b")] == ["00-wrong", "00-wrong", None]
    [said] = caplog.messages
    assert said.endswith("its traceparent is none, and no trace is taken from it: '00-wrong'")


async def test_a_producer_outside_of_a_span_or_with_its_own_word_is_let_be(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMQ_OTEL", "1")
    seen = Recorded()
    own = f"00-{TRACE}-{SPAN}-01"
    async with crew(server_url) as c, opener("async")(server_url) as client:
        await client.send(letter("a1"))
        with seen.provider.get_tracer("shop").start_as_current_span("order"):
            await client.send(letter("a2", traceparent=own))
        await seen.worker(c)
        events = await c.until("email.relayed", many=2)
    assert sorted(event.get("traceparent", "") for event in events) == ["", own]


class _Broken(SpanProcessor):
    def on_start(self, span: object, parent_context: object = None) -> None:
        raise RuntimeError("of somebody's own")


async def test_a_provider_that_fails_stops_no_mail(server_url: str, caplog: pytest.LogCaptureFixture) -> None:
    seen = Recorded()
    seen.provider.add_span_processor(_Broken())
    async with crew(server_url) as c:
        await seen.worker(c)
        with caplog.at_level(logging.WARNING, "streamq.traces"):
            for n in range(2):
                await c.add(id=f"a{n}")
            await c.until("email.relayed", many=2)
    [said] = [one for one in caplog.messages if "no span of" in one]
    assert said.endswith("RuntimeError: of somebody's own")


# -- by the environment ----------------------------------------------------------------------------------------------


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP receiver on loopback."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *said: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


async def test_the_standards_variables_say_where_spans_go(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left goes out when the worker stops."""
    with collector() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        async with crew(server_url) as c:
            await c.worker(otel=True)
            await c.add(id="a1", traceparent=f"00-{TRACE}-{SPAN}-01")
            await c.until("email.relayed")
    [resource] = [each for request in got for each in request.resource_spans]
    known = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (known["service.name"], known["deployment.environment"]) == ("streamq", "test")
    assert "service.instance.id" in known
    [span] = [span for scope in resource.scope_spans for span in scope.spans]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin-or-so", "got 'zipkin-or-so'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json-or-so", "got 'http/json-or-so'"),
    ],
)
def test_an_exporter_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"OTEL_TRACES_EXPORTER: .*{named}"):
        Worker(load_settings(relay="smtp://127.0.0.1:9", otel=True), "redis://127.0.0.1:9")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "999999"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "mine"),
    ],
)
def test_a_variable_that_the_sdk_cannot_do_with_is_named_with_its_value(variable: str, value: str) -> None:
    """Some are read when the SDK is imported: in a process of its own."""
    environment = {"STREAMQ_OTEL": "1", "OTEL_SERVICE_NAME": "shop", variable: value}
    said = _ran(MAKE.format(before=""), **environment).splitlines()
    assert said[0].startswith(f"{variable}: ")
    assert said[0].endswith(f"(got {value!r})")


def test_two_that_are_wrong_are_both_named() -> None:
    odd = {"OTEL_BSP_MAX_QUEUE_SIZE": "-1", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}
    said = _ran(MAKE.format(before=""), STREAMQ_OTEL="1", **odd).splitlines()
    assert said[0].startswith("STREAMQ_OTEL: ValueError: ")
    assert said[0].endswith("(set are OTEL_BSP_MAX_QUEUE_SIZE, OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT)")


def _ran(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PATH": "", **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MAKE = """
import sys
{before}
from streamq import Client
from streamq.settings import load_settings
from streamq.worker import Worker
from streamq.errors import SettingsError
for make in (lambda: Worker(load_settings(relay="smtp://127.0.0.1:9"), ""), lambda: Client("redis://127.0.0.1:9")):
    try:
        make()
    except SettingsError as wrong:
        print(wrong)
ours = ("streamq.worker.traces", "streamq.client.trace", "opentelemetry.sdk.trace")
print([name for name in ours if name in sys.modules])
"""


def test_who_asks_for_no_spans_imports_nothing() -> None:
    """(redis-py asks for metrics, where they are installed.)"""
    assert _ran(MAKE.format(before="")) == "[]\n"


def test_without_the_extra_it_is_named() -> None:
    said = _ran(MAKE.format(before="sys.modules['opentelemetry'] = None"), STREAMQ_OTEL="1").splitlines()[:-1]
    needs = "needs opentelemetry: install streamq with its extra `otel`"
    assert said == [f"STREAMQ_OTEL: {needs}", f"otel: {needs}"]
