"""Traces on the real way: a batch is linked to its senders, and each event's own trace goes on to its build's end."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import transaction
from django.test import Client
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from pytest_django import Settings

from deploy.local.simulator import Simulator
from kanikojobs import amqp, cloudevent, intake, kube, kube_watch, naming
from kanikojobs.amqp import Publication
from kanikojobs.models import JobStartEvent, KanikoJob, Move
from kanikojobs.states import State
from kanikojobs.topology import topology
from kanikojobs.tracing import exporting
from tests.bad_messages import TRACE
from tests.collector import collector
from tests.creating import work_off
from tests.factories import a_kaniko_job, a_message, an_event
from tests.odd_server import odd_server
from tests.sample_events import sample_event
from tests.stack_plugin import StartCommand, _test_database_url
from tests.test_pipeline import consume, work
from tests.watched_jobs import create_all, queued_job, wait_finished, wait_until, watching

CHECKOUT = Path(__file__).resolve().parent.parent
SENT = f"00-{TRACE}"
QUEUE = JobStartEvent.Origin.QUEUE


class Told:
    """The spans that were told, as OpenTelemetry would send them."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def named(self, *names: str) -> list[ReadableSpan]:
        """In the order in which they began."""
        found = [span for span in self.exporter.get_finished_spans() if span.name in names]
        return sorted(found, key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def told(settings: Settings) -> Iterator[Told]:
    """Traces are on, and what is told stays in memory."""
    settings.KANIKOJOBS_TRACES = True
    found = Told()
    exporting.send_by(SimpleSpanProcessor(found.exporter))
    yield found
    exporting.send_by(SimpleSpanProcessor(InMemorySpanExporter()))


def traceparent(context: SpanContext | None) -> str:
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def at(moment: datetime | None) -> int:
    assert moment is not None
    return round(moment.timestamp() * 1e9)


def send(events: dict[str, dict[str, Any]], *, headers: dict[str, dict[str, str]]) -> None:
    link = amqp.connect(django_settings.RABBITMQ_URL, name="tests")
    amqp.declare(link, topology())
    queue, kind = django_settings.KANIKOJOBS_QUEUE, "application/cloudevents+json"
    bodies = {name: json.dumps(event).encode() for name, event in events.items()}
    amqp.publish(link, [Publication("", queue, bodies[name], kind, headers.get(name, {})) for name in events])
    link.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("queues", "simulator")
def test_three_events_are_one_batch_and_three_traces_from_the_sender_to_the_end(told: Told) -> None:
    others = f"00-{'a' * 32}-{'b' * 16}-01"
    events: dict[str, dict[str, Any]] = {name: sample_event(n) for n, name in enumerate(("event", "header", "none"))}
    events["event"]["traceparent"] = SENT
    send(events, headers={"event": {"traceparent": f"00-{'c' * 32}-{'d' * 16}-01"}, "header": {"traceparent": others}})

    consume()
    work()
    with watching():
        wait_finished(list(KanikoJob.objects.all()))

    rows = {name: JobStartEvent.objects.get(event_id=event["id"]) for name, event in events.items()}
    root = told.one("build")
    # How many batches they make is a matter of when they arrive.
    batches = told.named(f"process {django_settings.KANIKOJOBS_QUEUE}")
    assert {name: row.traceparent for name, row in rows.items()} == {
        "event": SENT,
        "header": others,
        "none": f"{traceparent(root.context)[:-2]}01",
    }
    assert {(span.parent, span.kind) for span in batches} == {(None, SpanKind.CONSUMER)}
    assert {traceparent(link.context) for batch in batches for link in batch.links} == {
        row.traceparent for row in rows.values()
    }
    steps = ("create Job", "wait for pod", "run Job")
    for row in rows.values():
        assert [span.name for span in told.named(*steps) if traceparent(span.parent) == row.traceparent] == list(steps)
    built = rows["none"].kaniko_jobs.get()
    assert root.parent is None
    assert root.start_time == pytest.approx(at(rows["none"].received_at), abs=1000)
    assert root.end_time == pytest.approx(at(built.finished_at), abs=1000)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("simulator")
def test_a_jobs_spans_have_its_names_and_the_times_at_which_it_happened(told: Told, simulator: Simulator) -> None:
    simulator.settings(pod_start_seconds=0.1, run_seconds=0.1)
    intake.record([a_message(traceparent=SENT)], origin=QUEUE)

    work_off()
    with watching():
        (job,) = wait_finished(list(KanikoJob.objects.all()))

    create, wait, run = told.named("create Job", "wait for pod", "run Job")
    attempt = job.attempts.get()
    expected = {
        "k8s.namespace.name": job.namespace,
        "k8s.job.name": job.name,
        "k8s.job.uid": str(job.job_uid),
        "kanikojobs.number": 1,
        "cloudevents.event_id": job.event.event_id,
        "cloudevents.event_source": job.event.source,
    }
    assert dict(create.attributes or {}) == expected | {
        "http.response.status_code": 201,
        "kanikojobs.attempt": 1,
        "kanikojobs.outcome": "created",
    }
    assert dict(run.attributes or {}) == expected | {"kanikojobs.state": "succeeded", "k8s.node.name": job.node}
    assert (create.kind, run.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
    assert create.start_time is not None
    assert create.end_time is not None
    assert at(attempt.started_at) <= create.start_time
    assert (create.end_time - create.start_time) / 1e9 == pytest.approx(attempt.duration, abs=1e-6)
    assert (wait.start_time, wait.end_time) == pytest.approx((at(job.created_at), at(job.running_at)), abs=1000)
    assert (run.start_time, run.end_time) == pytest.approx((at(job.running_at), at(job.finished_at)), abs=1000)
    made = kube.request("GET", kube_watch.jobs_path(job.name)).body
    assert made["metadata"]["annotations"][f"{naming.PREFIX}traceparent"] == SENT


@pytest.mark.django_db(transaction=True)
def test_each_try_is_a_span_and_a_failed_one_says_why(told: Told, simulator: Simulator) -> None:
    simulator.faults([{"do": "status", "status": 500, "verb": "create", "count": 1}])
    intake.record([a_message(traceparent=SENT)], origin=QUEUE)

    work_off()

    first, second = told.named("create Job")
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.status.status_code == StatusCode.ERROR
    assert first.attributes["error.type"] == KanikoJob.objects.get().attempts.order_by("number")[0].reason
    assert (first.attributes["http.response.status_code"], second.attributes["kanikojobs.attempt"]) == (500, 2)
    assert second.status.status_code == StatusCode.UNSET
    assert traceparent(first.parent) == traceparent(second.parent) == SENT


ENDS: dict[str, tuple[State, State, str, list[tuple[str, str]]]] = {
    "failed": (State.RUNNING, State.FAILED, "OOMKilled", [("wait for pod", ""), ("run Job", "OOMKilled")]),
    "never ran": (State.CREATED, State.FAILED, "ImageMissing", [("wait for pod", "ImageMissing")]),
    "cancelled": (State.RUNNING, State.CANCELLED, "CancelledByOperator", [("wait for pod", ""), ("run Job", "")]),
    "never created": (State.QUEUED, State.CANCELLED, "CancelledByOperator", []),
    "refused": (State.CREATING, State.FAILED, "CreateRejected", []),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", ENDS)
def test_the_last_span_of_a_build_says_how_it_ended(told: Told, end: str) -> None:
    state, to, reason, expected = ENDS[end]
    job = a_kaniko_job(event=an_event(traceparent=SENT), state=state)
    if state == State.RUNNING:
        KanikoJob.objects.filter(pk=job.pk).update(running_at=job.created_at)

    KanikoJob.objects.move([Move(id=job.pk, to=to, reason=reason)])

    spans = told.exporter.get_finished_spans()
    assert [(span.name, (span.attributes or {}).get("error.type", "")) for span in spans] == expected


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_told(told: Told) -> None:
    job = a_kaniko_job(event=an_event(traceparent=SENT), state="running")

    with transaction.atomic():
        KanikoJob.objects.move([Move(id=job.pk, to=State.SUCCEEDED)])
        transaction.set_rollback(True)

    assert told.exporter.get_finished_spans() == ()


HOSTILE = {
    "zeros": f"00-{'0' * 32}-{'0' * 16}-00",
    "no version": f"ff-{TRACE}",
    "not hexadecimal": f"00-{'g' * 32}-{'h' * 16}-01",
    "other digits": f"00-{'٣' * 32}-{'٣' * 16}-01",
    "long": "0" * 4000,
    "a number": 1,
    "true": True,
    "empty": "",
}


@pytest.mark.django_db
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_traceparent_that_is_none_does_no_harm_and_gets_a_trace_of_its_own(told: Told, kind: str) -> None:
    result = intake.record([a_message(traceparent=HOSTILE[kind])], origin=QUEUE)

    row = JobStartEvent.objects.get()
    (link,) = told.one(f"process {django_settings.KANIKOJOBS_QUEUE}").links
    assert result.recorded == 1
    assert traceparent(link.context) == row.traceparent
    assert cloudevent.attributes.trace(row.traceparent) == (row.traceparent, row.trace_id)
    assert row.trace_id not in str(HOSTILE[kind])


@pytest.mark.django_db
def test_a_header_that_is_no_traceparent_does_no_harm_either(told: Told) -> None:
    headers: list[object] = [*HOSTILE.values(), f"00-{TRACE}\nforged: line", b"\xff", [SENT], {"a": 1}, None]
    messages = [replace(a_message(), headers={"traceparent": header}) for header in headers]

    result = intake.record(messages, origin=QUEUE)

    assert result.recorded == len(headers)
    assert JobStartEvent.objects.exclude(trace_id="").values("trace_id").distinct().count() == len(headers)


@pytest.mark.django_db
def test_all_of_a_large_batch_are_linked_and_invalid_ones_are_counted(told: Told) -> None:
    batch = [a_message(traceparent=f"00-{n:032x}-{n:016x}-01") for n in range(1, 301)]

    intake.record([*batch, a_message(type="")], origin=QUEUE)

    span = told.one(f"process {django_settings.KANIKOJOBS_QUEUE}")
    assert [link.context.trace_id for link in span.links] == list(range(1, 301))
    assert dict(span.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.destination.name": django_settings.KANIKOJOBS_QUEUE,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": 301,
        "kanikojobs.origin": "queue",
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("simulator")
def test_a_trace_that_its_sender_does_not_keep_is_not_kept_here(told: Told) -> None:
    intake.record([a_message(traceparent=f"{SENT[:-2]}00")], origin=QUEUE)

    work_off()

    assert KanikoJob.objects.get().state == "created"
    assert told.named("create Job") == []


@pytest.mark.django_db(transaction=True)
def test_what_is_not_sampled_is_given_a_trace_that_nobody_keeps(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    exporting.send_by(SimpleSpanProcessor(told.exporter))

    intake.record([a_message()], origin=QUEUE)
    job = KanikoJob.objects.get()
    KanikoJob.objects.move([Move(id=job.pk, to=State.CANCELLED)])

    assert job.event.traceparent.endswith("-00")
    assert told.exporter.get_finished_spans() == ()


@pytest.mark.django_db(transaction=True)
def test_a_retry_is_in_the_trace_and_tells_no_second_root(told: Told) -> None:
    intake.record([a_message()], origin=QUEUE)
    first = KanikoJob.objects.get()
    KanikoJob.objects.move([Move(id=first.pk, to=State.CANCELLED)])
    second = a_kaniko_job(event=first.event, number=2, state=State.CREATED)

    KanikoJob.objects.move([Move(id=second.pk, to=State.FAILED, reason="ImageMissing")])

    root, wait = told.one("build"), told.one("wait for pod")
    assert traceparent(wait.parent) == first.event.traceparent
    assert traceparent(root.context)[:-2] == first.event.traceparent[:-2]


class Broken(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("no")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("simulator")
def test_spans_that_cannot_be_told_harm_nothing(told: Told) -> None:
    exporting.send_by(Broken())

    result = intake.record([a_message(), a_message(traceparent=SENT)], origin=QUEUE)
    work_off()
    job = KanikoJob.objects.first()
    assert job is not None
    moved = KanikoJob.objects.move([Move(id=job.pk, to=State.SUCCEEDED)])

    assert result.recorded == 2
    assert set(KanikoJob.objects.exclude(pk=job.pk).values_list("state", flat=True)) == {"created"}
    assert moved == {job.pk}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("simulator")
def test_the_names_are_those_of_the_conventions(told: Told) -> None:
    intake.record([a_message(), a_message()], origin=QUEUE)
    work_off()
    with watching():
        wait_finished(list(KanikoJob.objects.all()))

    used = {name for span in told.exporter.get_finished_spans() for name in span.attributes or {}}
    known = {
        value
        for module in ("messaging", "cloudevents", "k8s", "http", "error")
        for place in (f"opentelemetry.semconv._incubating.attributes.{module}_attributes",)
        for value in vars(import_module(place)).values()
        if isinstance(value, str)
    }
    assert len(used) > 12
    assert {name for name in used - known if not name.startswith("kanikojobs.")} == set()


@pytest.mark.django_db(transaction=True)
def test_with_traces_off_nothing_of_opentelemetry_is_even_imported() -> None:
    program = """
import pkgutil, sys
import django
django.setup()
import kanikojobs
from importlib import import_module
for module in pkgutil.walk_packages(kanikojobs.__path__, "kanikojobs."):
    if module.name != "kanikojobs.tracing.exporting":
        import_module(module.name)
from kanikojobs import intake
from kanikojobs.models import KanikoJob, Move
from kanikojobs.states import State
from tests.factories import a_kaniko_job, a_message
print(intake.record([a_message()], origin="queue").recorded)
print(KanikoJob.objects.move([Move(id=a_kaniko_job(state="running").pk, to=State.SUCCEEDED)]) != set())
print(sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry"))
"""
    environment = {"DATABASE_URL": _test_database_url(), "DJANGO_SETTINGS_MODULE": "project.settings"}

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        env={**os.environ, **environment, "KANIKOJOBS_LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.stdout.splitlines() == ["1", "True", "[]"], ended.stderr


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("simulator")
def test_forked_workers_send_their_spans_at_the_latest_when_they_end(start_command: StartCommand) -> None:
    job = queued_job(traceparent=SENT)
    with collector() as (address, sent):
        cluster = start_command(
            "qcluster",
            env={
                "KANIKOJOBS_TRACES": "1",
                "KANIKOJOBS_WORKER_COUNT": "1",
                "OTEL_EXPORTER_OTLP_ENDPOINT": address,
                "OTEL_BSP_SCHEDULE_DELAY": "600000",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            },
        )
        wait_until(lambda: KanikoJob.objects.filter(state="created").exists())

        cluster.stop()

    ((process, name),) = sent
    assert name == "create Job"
    assert process["service.name"] == "kanikojobs"
    assert process["deployment.environment.name"] == "test"
    assert process["service.instance.id"] == job.attempts.get().worker


def test_a_process_does_not_wait_for_a_collector_that_hangs() -> None:
    program = """
import django
django.setup()
from kanikojobs.tracing import exporting
from kanikojobs.tracing.telling import Span
exporting.export(Span(name="x", kind="internal", began_at=1, ended_at=2, attributes={}))
exporting.LONGEST_FAREWELL = 0.1
"""

    def never_answers(peer: socket.socket) -> None:
        peer.settimeout(60)
        while peer.recv(65536):
            pass

    with odd_server(never_answers) as port:
        environment = {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "50",
        }

        # The exporter alone would wait for 50 s and more.
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=40,
        )

    assert ended.returncode == 0, ended.stderr


@pytest.mark.django_db
@pytest.mark.parametrize("trace_id", ["4bf92f3577b34da6a3ce929d0e0e4736", ""])
def test_an_events_page_links_to_its_trace_if_there_is_one(
    admin_client: Client, settings: Settings, trace_id: str
) -> None:
    settings.KANIKOJOBS_TRACE_URL = "https://traces.example/trace/{trace_id}?org=1&to=now"
    event = an_event(trace_id=trace_id)

    page = admin_client.get(f"/admin/kanikojobs/jobstartevent/{event.pk}/change/").content.decode()

    link = f'href="https://traces.example/trace/{trace_id}?org=1&amp;to=now"'
    assert (link in page) == bool(trace_id)
    assert ("traces.example" in page) == bool(trace_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("simulator")
def test_the_line_of_a_builds_end_has_the_ids_of_its_event(start_command: StartCommand) -> None:
    job = queued_job(traceparent=SENT, trace_id=SENT[3:35])
    watcher = start_command("watch_jobs")
    create_all()

    wait_finished([job])
    wait_until(lambda: "job-finished" in watcher.log.read_text())

    (line,) = [json.loads(line) for line in watcher.log.read_text().splitlines() if "job-finished" in line]
    assert line["event_id"] == job.event.event_id
    assert line["correlation_id"] == job.event.correlation_id
    assert line["trace_id"] == SENT[3:35]
    assert (line["kaniko_job"], line["number"], line["state"]) == (job.name, 1, "succeeded")
