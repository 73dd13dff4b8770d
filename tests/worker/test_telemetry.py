"""What runs tell OpenTelemetry, executed by a runner on a real database, with exporters in memory."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry._logs import _internal as logs_internal
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode
from opentelemetry.util._once import Once

from detent import AbortTaskRunError, Context, Retry, Telemetry, logger, step, task, tasks, wait
from detent.errors import ConfigError
from detent.protocol import ids
from detent.protocol.ids import RunId
from detent.protocol.status import RunStatus
from detent.worker.providers import Providers
from detent.worker.telling import EventKind
from tests.worker.conftest import StartRig
from tests.worker.rig import PATIENCE, Rig


@pytest.fixture(autouse=True)
def nothing_shared() -> Iterator[None]:
    """Globals of OpenTelemetry may be set once a process; here, once a test."""
    forget_globals()
    yield
    forget_globals()


def forget_globals() -> None:
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    metrics_internal._METER_PROVIDER, metrics_internal._METER_PROVIDER_SET_ONCE = None, Once()
    logs_internal._LOGGER_PROVIDER, logs_internal._LOGGER_PROVIDER_SET_ONCE = None, Once()


class Told:
    """A rig, and what its runs have told when it is over."""

    def __init__(self, rig: Rig, exporter: InMemorySpanExporter) -> None:
        self.rig, self._exporter = rig, exporter

    @property
    def spans(self) -> list[ReadableSpan]:
        """All that were exported, in the order of their ends."""
        return list(self._exporter.get_finished_spans())


Telling = Callable[..., AbstractAsyncContextManager[Told]]


@pytest.fixture
def telling(start_rig: StartRig) -> Telling:
    """Starts a rig that tells of spans, and of what else is given."""

    @asynccontextmanager
    async def start(**given: Any) -> AsyncIterator[Told]:
        exporter = InMemorySpanExporter()
        exporters = [*given.pop("exporters", ()), exporter]
        providers = Providers(Telemetry(exporters=exporters, **given), project="shop", environment="dev")
        async with start_rig(telemetry=providers.runs) as rig:
            yield Told(rig, exporter)
        await providers.close(0.2)

    return start


def named(spans: Sequence[ReadableSpan], name: str) -> ReadableSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


# ---- attempts ----


async def test_an_attempt_is_a_span_that_says_whose_it_is(telling: Telling) -> None:
    @task
    async def charge() -> None: ...

    async with telling() as told:
        run_id = await told.rig.trigger("charge")
        await told.rig.end_of(run_id)
        record = await told.rig.record(run_id)
    (span,) = told.spans
    assert (span.name, span.kind, span.status.status_code) == ("charge", SpanKind.CONSUMER, StatusCode.UNSET)
    assert attributes(span) == {
        "run_id": run_id,
        "task_identifier": "charge",
        "attempt_number": 1,
        "worker_version": record.version,
        "environment_type": "DEVELOPMENT",
    }
    assert (span.resource.attributes["service.name"], span.resource.attributes["deployment.environment.name"]) == (
        "shop",
        "dev",
    )
    assert f"{trace_id(span):032x}" == ids.to_hex("run", run_id)


async def test_a_failed_attempt_says_what_it_failed_with(telling: Telling) -> None:
    @task(retry=Retry(max_attempts=2, min_timeout="1ms", max_timeout="1ms"))
    async def fragile(ctx: Context) -> None:
        if ctx.attempt.number == 1:
            raise LookupError("not there")

    async with telling() as told:
        await told.rig.run("fragile")
    first, second = told.spans
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "LookupError: not there")
    assert attributes(first)["error.type"] == "LookupError"
    (event,) = first.events
    said = dict(event.attributes or {})
    assert (event.name, said["exception.type"], said["exception.message"]) == ("exception", "LookupError", "not there")
    assert "raise LookupError" in str(said["exception.stacktrace"])
    assert (attributes(second)["attempt_number"], second.status.status_code) == (2, StatusCode.UNSET)
    assert trace_id(first) == trace_id(second)
    assert span_id(first) != span_id(second)


async def test_an_attempt_whose_run_is_cancelled_is_an_error(telling: Telling) -> None:
    @task
    async def endless() -> None:
        await asyncio.Event().wait()

    async with telling() as told:
        run_id = await told.rig.trigger("endless")
        await told.rig.saw(run_id, EventKind.STARTED)
        await told.rig.backend.cancel_runs([run_id], "by a test")
        await told.rig.saw(run_id, EventKind.CANCELLED)
    (span,) = told.spans
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "RunCancelledError"


async def test_an_attempt_that_takes_too_long_is_an_error(telling: Telling) -> None:
    @task(max_duration="50ms")
    async def endless() -> None:
        await asyncio.Event().wait()

    async with telling() as told:
        await told.rig.run("endless")
    (span,) = told.spans
    assert attributes(span)["error.type"] == "MaxDurationExceededError"


async def test_spans_of_parallel_code_have_ids_and_parents_of_their_own(telling: Telling) -> None:
    async def one() -> None:
        with logger.trace("outer"):
            await asyncio.sleep(0)
            with logger.trace("inner"):
                await asyncio.sleep(0)

    @task
    async def parallel() -> None:
        await asyncio.gather(one(), one(), one())

    async with telling() as told:
        await told.rig.run("parallel")
    outer = {span_id(span) for span in told.spans if span.name == "outer"}
    assert len({span_id(span) for span in told.spans}) == 7
    assert {parent_id(span) for span in told.spans if span.name == "inner"} == outer


@pytest.mark.parametrize("is_threaded", [False, True])
async def test_spans_of_a_run_nest_in_those_around_them(telling: Telling, is_threaded: bool) -> None:
    def inner() -> None:
        with logger.trace("outer", size=3, tags=["a", "b"], by={"name": "Ada"}) as outer:
            outer.set(done=True)
            with trace.get_tracer("library").start_as_current_span("inner"):
                pass

    if is_threaded:

        @task(id="nesting")
        def nesting() -> None:
            inner()

    else:

        @task(id="nesting")
        async def nesting_too() -> None:
            inner()

    async with telling() as told:
        run_id = await told.rig.trigger("nesting")
        await told.rig.end_of(run_id)
    spans = told.spans
    library, outer, attempt = spans
    assert [span.name for span in spans] == ["inner", "outer", "nesting"]
    assert (parent_id(library), parent_id(outer)) == (span_id(outer), span_id(attempt))
    assert {trace_id(span) for span in spans} == {trace_id(attempt)}
    given = {name: value for name, value in attributes(outer).items() if name not in attributes(attempt)}
    assert given == {"size": 3, "tags": ("a", "b"), "by": '{"name":"Ada"}', "done": True}
    assert attributes(library)["run_id"] == run_id


async def test_a_span_that_an_exception_leaves_is_an_error(telling: Telling) -> None:
    @task(retry=1)
    async def failing() -> None:
        async with logger.trace("resize"):
            raise AbortTaskRunError("too small")

    async with telling() as told:
        await told.rig.run("failing")
    spans = told.spans
    assert {span.name: span.status.description for span in spans} == {
        "resize": "AbortTaskRunError: too small",
        "failing": "AbortTaskRunError: too small",
    }


async def test_a_family_of_runs_is_one_trace(telling: Telling) -> None:
    @task
    async def leaf() -> None: ...

    @task
    async def child() -> None:
        await tasks.call("leaf")

    @task
    async def root() -> str:
        await tasks.call("child")
        return (await tasks.trigger("leaf")).id

    async with telling() as told:
        run_id = await told.rig.trigger("root")
        outcome = await told.rig.end_of(run_id)
        await told.rig.end_of(RunId(json.loads(outcome.output or "")))
    first, middle = named(told.spans, "root"), named(told.spans, "child")
    below_child, below_root = [span for span in told.spans if span.name == "leaf"]
    assert {trace_id(span) for span in told.spans} == {int(ids.to_hex("run", run_id), 16)}
    assert (parent_id(first), parent_id(middle), parent_id(below_child), parent_id(below_root)) == (
        None, span_id(first), span_id(middle), span_id(first),
    )  # fmt: skip


async def test_hooks_of_the_end_are_told_below_the_attempt(telling: Telling) -> None:
    called = asyncio.Event()

    @task
    async def charge() -> None: ...

    @charge.on_success
    async def thank() -> None:
        with logger.trace("thanks"):
            called.set()

    async with telling() as told:
        await told.rig.run("charge")
        await called.wait()
    assert parent_id(named(told.spans, "thanks")) == span_id(named(told.spans, "charge"))


async def test_hooks_that_another_process_calls_are_told_below_the_attempt(telling: Telling) -> None:
    called = asyncio.Event()

    @task
    async def waiting() -> None:
        await wait.for_(hours=1)

    @waiting.on_cancel
    async def clean_up() -> None:
        with logger.trace("cleaning"):
            called.set()

    async with telling() as first:
        run_id = await first.rig.trigger("waiting")
        await first.rig.saw(run_id, EventKind.WAITING)
    async with telling() as second:
        await second.rig.backend.cancel_runs([run_id], "by a test")
        async with asyncio.timeout(PATIENCE):
            await called.wait()
    (span,) = second.spans
    assert (span.name, f"{trace_id(span):032x}") == ("cleaning", ids.to_hex("run", run_id))
    assert f"{parent_id(span):016x}" == ids.to_hex("run", run_id)[16:]


# ---- replays ----


async def test_a_replay_tells_nothing_twice(telling: Telling) -> None:
    lives: list[str] = []

    @task
    async def child() -> None: ...

    @task
    async def sleeper() -> None:
        lives.append("")
        with logger.trace("whole"):
            with logger.trace("before"):
                pass
            logger.info("before the child")
            await tasks.call("child")
            with logger.trace("between"):
                logger.info("between")
            await wait.for_(hours=1)
            with logger.trace("after"):
                logger.info("after")

    lines = InMemoryLogRecordExporter(), InMemoryLogRecordExporter()
    async with telling(log_exporters=[lines[0]]) as asleep:
        run_id = await asleep.rig.trigger("sleeper")
        await asleep.rig.saw(run_id, EventKind.WAITING, times=2)
    async with telling(log_exporters=[lines[1]]) as awake:
        awake.rig.clock.advance(timedelta(hours=2))
        await awake.rig.end_of(run_id)
    assert len(lives) == 2
    assert [span.name for span in asleep.spans] == ["before", "child", "between"]
    assert [span.name for span in awake.spans] == ["after", "whole", "sleeper"]
    spans = {span.name: span for span in (*asleep.spans, *awake.spans)}
    assert {name: parent_id(span) for name, span in spans.items() if name != "sleeper"} == {
        "child": span_id(spans["sleeper"]), "whole": span_id(spans["sleeper"]),
        "before": span_id(spans["whole"]), "between": span_id(spans["whole"]), "after": span_id(spans["whole"]),
    }  # fmt: skip
    assert spans["sleeper"].start_time is not None
    assert spans["sleeper"].start_time <= (spans["before"].start_time or 0)
    told = [[str(line.log_record.body) for line in each.get_finished_logs()] for each in lines]
    assert told == [["before", "before the child", "between", "between"], ["after", "after", "whole"]]


async def test_spans_of_a_step_are_told_by_whoever_does_it(telling: Telling) -> None:
    @task
    async def pricing() -> None:
        await step("price", price)
        await wait.for_(hours=1)

    async def price() -> int:
        with logger.trace("asking"):
            return 5

    async with telling() as first:
        run_id = await first.rig.trigger("pricing")
        await first.rig.saw(run_id, EventKind.WAITING)
    async with telling() as second:
        second.rig.clock.advance(timedelta(hours=2))
        await second.rig.end_of(run_id)
    assert [span.name for span in (*first.spans, *second.spans)] == ["asking", "pricing"]


async def test_an_attempt_that_is_handed_back_is_told_by_whoever_ends_it(telling: Telling) -> None:
    begun: list[asyncio.Event] = [asyncio.Event(), asyncio.Event()]

    @task
    async def slow() -> None:
        begun[0].set()
        if len(begun) > 1:
            begun.pop()
            await asyncio.Event().wait()

    async with telling() as first:
        run_id = await first.rig.trigger("slow")
        await begun[0].wait()
    async with telling() as second:
        await second.rig.end_of(run_id)
    assert first.spans == []
    assert [span.name for span in second.spans] == ["slow"]


# ---- log lines and metrics ----


async def test_log_lines_are_exported_with_the_span_they_were_written_in(telling: Telling) -> None:
    @task
    async def writing() -> None:
        logger.warn("low on disk", free=5, odd=object)
        with logger.trace("stretch"):
            logging.getLogger("shop").error("from the library %d", 7)
        print("printed")
        logger.debug("below the level")

    lines = InMemoryLogRecordExporter()
    async with telling(log_exporters=[lines]) as told:
        run_id = await told.rig.trigger("writing")
        await told.rig.end_of(run_id)
    attempt, stretch = named(told.spans, "writing"), named(told.spans, "stretch")
    records = [line.log_record for line in lines.get_finished_logs()]
    assert [(record.severity_text, record.body, record.span_id) for record in records] == [
        ("warn", "low on disk", span_id(attempt)),
        ("error", "from the library 7", span_id(stretch)),
        ("info", "stretch", span_id(stretch)),
        ("log", "printed", span_id(attempt)),
    ]
    assert {record.trace_id for record in records} == {trace_id(attempt)}
    first = dict(records[0].attributes or {})
    assert (first["free"], first["odd"], first["run_id"]) == (5, "<class 'object'>", run_id)


async def test_metrics_of_tasks_are_exported_through_opentelemetry_itself(telling: Telling) -> None:
    counter = metrics.get_meter("shop").create_counter("charged")

    @task
    async def charge(amount: int) -> None:
        counter.add(amount, {"currency": "eur"})

    reader, exporter = InMemoryMetricReader(), Meters()
    async with telling(metric_readers=[reader], metric_exporters=[exporter]) as told:
        await told.rig.run("charge", 3)
        await told.rig.run("charge", 4)
        (point,) = points(reader.get_metrics_data())
    assert (point.value, dict(point.attributes)) == (7, {"currency": "eur"})
    assert [point.value for data in exporter.exported for point in points(data)] == [7]
    assert point.exemplars[-1].trace_id in {trace_id(span) for span in told.spans}


class Meters(MetricExporter):
    def __init__(self) -> None:
        super().__init__()
        self.exported: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: object) -> MetricExportResult:
        self.exported.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: object) -> None: ...


def points(data: MetricsData | None) -> list[NumberDataPoint]:
    assert data is not None
    return [
        point
        for of_resource in data.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    ]


# ---- what is shared ----


class Instrumentation:
    def __init__(self, failure: Exception | None = None) -> None:
        self.given: dict[str, object] = {}
        self._failure = failure

    def instrument(self, **providers: object) -> None:
        if self._failure is not None:
            raise self._failure
        self.given = providers


async def test_instrumentations_are_given_our_providers() -> None:
    instrumentation = Instrumentation()
    Providers(Telemetry(instrumentations=[instrumentation]), project="shop", environment="dev")
    assert instrumentation.given["tracer_provider"] is trace.get_tracer_provider()
    assert instrumentation.given.keys() == {"tracer_provider", "meter_provider", "logger_provider"}


async def test_an_instrumentation_that_fails_is_named() -> None:
    broken = Instrumentation(LookupError("no such library"))
    with pytest.raises(ConfigError, match=r"telemetry: Instrumentation cannot be switched on: LookupError: no such"):
        Providers(Telemetry(instrumentations=[broken]), project="shop", environment="dev")


async def test_what_others_have_set_stays(telling: Telling) -> None:
    theirs = NoOpTracerProvider()
    trace.set_tracer_provider(theirs)

    @task
    async def charge() -> None: ...

    async with telling() as told:
        assert trace.get_tracer_provider() is theirs
        assert isinstance(metrics.get_meter_provider(), metrics_internal._ProxyMeterProvider)
        await told.rig.run("charge")
    assert [span.name for span in told.spans] == ["charge"]


# ---- processors and exporters that fail ----


class Processor(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        span._attributes = {"card": "…", "attempt_number": 9}


class Broken(SpanProcessor):
    def on_start(self, span: Span, parent_context: object = None) -> None:
        raise ValueError("no start")

    def on_end(self, span: ReadableSpan) -> None:
        raise ValueError("no end")


async def test_processors_come_before_exporters_and_cannot_part_a_span_from_its_run(telling: Telling) -> None:
    @task
    async def charge() -> None:
        with logger.trace("pay", card="4242"):
            pass

    async with telling(span_processors=[Processor()]) as told:
        run_id = await told.rig.trigger("charge")
        await told.rig.end_of(run_id)
    assert attributes(named(told.spans, "pay")) == {
        "card": "…", "run_id": run_id, "task_identifier": "charge", "attempt_number": 1,
    }  # fmt: skip


async def test_a_processor_that_fails_is_reported_once_and_the_span_is_exported(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    async def charge() -> None:
        for number in range(3):
            with logger.trace(f"pay {number}"):
                pass

    async with telling(span_processors=[Broken()]) as told:
        run_id = await told.rig.trigger("charge")
        await told.rig.end_of(run_id)
        lines = await told.rig.messages_of(run_id)
    assert [span.name for span in told.spans] == ["pay 0", "pay 1", "pay 2", "charge"]
    assert failures(caplog) == ["ValueError: no start"]
    assert lines == ["pay 0", "pay 1", "pay 2"]


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage().rpartition("said once: ")[2] for record in caplog.records if "fails" in record.getMessage()
    ]


class Refusing(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise ConnectionError("no collector")


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.released = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.released.wait()
        return SpanExportResult.SUCCESS


async def test_an_exporter_that_fails_or_hangs_delays_neither_runs_nor_the_end_of_the_process(
    telling: Telling, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    async def charge() -> None: ...

    hanging = Hanging()
    async with telling(exporters=[hanging, Refusing()]) as told:
        outcomes = [await told.rig.run("charge") for _ in range(3)]
    hanging.released.set()
    assert [outcome.status for outcome in outcomes] == [RunStatus.COMPLETED] * 3
    assert len(told.spans) == 3
    assert failures(caplog) == ["ConnectionError: no collector"]
    assert "telemetry: 1 of 3 exporters did not take what was left in time" in caplog.messages
