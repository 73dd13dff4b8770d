"""OpenTelemetry's providers in a process that executes runs: made as the config says, shared, and flushed at the process's end.

Everything is exported from threads of its own, so that neither a run nor a hand-back waits for an exporter, whatever that does.
What fails is said once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Sequence
from typing import TypeAlias

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs._internal import ProxyLoggerProvider
from opentelemetry.context import Context
from opentelemetry.metrics._internal import _ProxyMeterProvider
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import ProxyTracerProvider

from detent.errors import ConfigError
from detent.protocol import run_error
from detent.sdk.telemetry import Telemetry
from detent.worker import telemetry
from detent.worker.span_ids import RunIds

CLOSING_SECONDS = 4.0
"""What exporters are given at the end of the process for what is left."""
_EVERY = 1_000
"""Milliseconds for which spans and log lines gather."""
_QUEUED = 16_384
"""Spans, or log lines, that wait for one exporter."""
_BATCH = 512
_LIMITS = SpanLimits(
    max_attributes=1024,
    max_attribute_length=telemetry.LONGEST_VALUE,
    max_events=10,
    max_links=2,
    max_event_attributes=10,
    max_link_attributes=10,
)
_REFUSED = "it answers that it could not export"
_Part: TypeAlias = SpanProcessor | BatchLogRecordProcessor | MetricReader

log = logging.getLogger("detent.worker")


class Providers:
    """Of one process. Raises `ConfigError` for an instrumentation that cannot be switched on."""

    def __init__(self, config: Telemetry, *, project: str, environment: str) -> None:
        self._config = config
        about = {"service.name": project or "detent", "deployment.environment.name": environment}
        resource = Resource.create(about | dict(config.resource))
        readers = [*config.metric_readers, *map(_reader_for, config.metric_exporters)]
        own = [_OwnProcessor(processor) for processor in config.span_processors]
        exporting = [_batches_for(exporter) for exporter in config.exporters]
        lines = [_line_batches_for(exporter) for exporter in config.log_exporters]
        self._meters = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._tracers = TracerProvider(
            # Said here, for else an environment variable of OpenTelemetry decides.
            sampler=ALWAYS_ON,
            resource=resource,
            shutdown_on_exit=False,
            id_generator=RunIds(),
            span_limits=_LIMITS,
        )
        self._tracers.add_span_processor(_Spans(own, exporting))
        self._loggers = LoggerProvider(resource, shutdown_on_exit=False)
        for processor in lines:
            self._loggers.add_log_record_processor(processor)
        self._parts: list[_Part] = [*own, *exporting, *lines, *readers]
        self._share()
        self._instrument()

    @property
    def runs(self) -> telemetry.RunTelemetry:
        """What runs tell these providers with."""
        logger = self._loggers.get_logger(telemetry.NAME) if self._config.log_exporters else None
        return telemetry.RunTelemetry(self._tracers.get_tracer(telemetry.NAME), logger)

    def _share(self) -> None:
        """Let code that asks OpenTelemetry itself for a tracer or meter have ours, where nobody has set another one."""
        given = self._config
        has_spans = given.exporters or given.span_processors or given.instrumentations
        if has_spans and isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
            trace.set_tracer_provider(self._tracers)
        has_metrics = given.metric_exporters or given.metric_readers
        if has_metrics and isinstance(metrics.get_meter_provider(), _ProxyMeterProvider):
            metrics.set_meter_provider(self._meters)
        if given.log_exporters and isinstance(_logs.get_logger_provider(), ProxyLoggerProvider):
            _logs.set_logger_provider(self._loggers)

    def _instrument(self) -> None:
        for instrumentation in self._config.instrumentations:
            try:
                instrumentation.instrument(
                    tracer_provider=self._tracers, meter_provider=self._meters, logger_provider=self._loggers
                )
            except Exception as error:
                what = f"telemetry: {type(instrumentation).__name__} cannot be switched on"
                raise ConfigError(f"{what}: {run_error.from_exception(error)}") from error

    async def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Export what is left, as far as that takes no longer than *seconds*. Nothing is told afterwards."""
        closing = [_closed(part) for part in self._parts]
        if closing:
            _, late = await asyncio.wait(closing, timeout=seconds)
            if late:
                log.warning("telemetry: %d of %d exporters did not take what was left in time", len(late), len(closing))


def _batches_for(exporter: SpanExporter) -> BatchSpanProcessor:
    return BatchSpanProcessor(_SpanExporter(exporter), _QUEUED, _EVERY, _BATCH)


def _line_batches_for(exporter: LogRecordExporter) -> BatchLogRecordProcessor:
    return BatchLogRecordProcessor(
        _LogExporter(exporter), max_queue_size=_QUEUED, schedule_delay_millis=_EVERY, max_export_batch_size=_BATCH
    )


def _reader_for(exporter: MetricExporter) -> MetricReader:
    return PeriodicExportingMetricReader(_MetricExporter(exporter))


def _closed(part: _Part) -> asyncio.Future[None]:
    """Close it in a thread that the process does not wait for at its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not done.done():
            done.set_result(None)

    def in_thread() -> None:
        with _Guard(part):
            part.shutdown()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(end)

    threading.Thread(target=in_thread, name="detent-telemetry", daemon=True).start()
    return done


class _Guard:
    """Lets nothing out that the user's object raises, and says the first failure of it alone."""

    def __init__(self, guarded: object) -> None:
        self._name, self._is_said = type(guarded).__name__, False

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.say(str(run_error.from_exception(error)))
        return True

    def say(self, why: str) -> None:
        if not self._is_said:
            self._is_said = True
            # In nobody's context: it is no line of the run that happens to be here.
            contextvars.Context().run(log.warning, "telemetry: %s fails, which is said once: %s", self._name, why)


class _Spans(SpanProcessor):
    """Stands before all others: says of which attempt a span is, keeps back what is not to be told, and keeps the order."""

    def __init__(self, own: Sequence[SpanProcessor], exporting: Sequence[SpanProcessor]) -> None:
        self._own, self._exporting = own, exporting

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for processor in self._own:
            processor.on_start(span, parent_context)
        attempt = telemetry.present()
        if attempt is not None:
            span.set_attributes(attempt.attributes)

    def _on_ending(self, span: Span) -> None:
        for processor in self._own:
            processor._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        if not telemetry.is_told(span):
            return
        for processor in self._own:
            processor.on_end(span)
        _link_again(span)
        for processor in self._exporting:
            processor.on_end(span)


def _link_again(span: ReadableSpan) -> None:
    """Put back what a processor has taken away although a span is found by it."""
    attempt, present = telemetry.present(), span.attributes or {}
    if attempt is None:
        return
    links = {name: attempt.attributes[name] for name in telemetry.LINKS}
    if any(present.get(name) != value for name, value in links.items()):
        span._attributes = {**present, **links}


class _OwnProcessor(SpanProcessor):
    """One of the user's."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor, self._guard = processor, _Guard(processor)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        with self._guard:
            self._processor.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        with self._guard:
            self._processor._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        with self._guard:
            self._processor.on_end(span)

    def shutdown(self) -> None:
        with self._guard:
            self._processor.shutdown()


class _SpanExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter, self._guard = exporter, _Guard(exporter)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        with self._guard:
            result = self._exporter.export(spans)
            if result is SpanExportResult.FAILURE:
                self._guard.say(_REFUSED)
        return result

    def shutdown(self) -> None:
        with self._guard:
            self._exporter.shutdown()


class _LogExporter(LogRecordExporter):
    def __init__(self, exporter: LogRecordExporter) -> None:
        self._exporter, self._guard = exporter, _Guard(exporter)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = LogRecordExportResult.FAILURE
        with self._guard:
            result = self._exporter.export(batch)
            if result is LogRecordExportResult.FAILURE:
                self._guard.say(_REFUSED)
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        with self._guard:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK has none there


class _MetricExporter(MetricExporter):
    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter, self._guard = exporter, _Guard(exporter)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: object
    ) -> MetricExportResult:
        result = MetricExportResult.FAILURE
        with self._guard:
            result = self._exporter.export(metrics_data, timeout_millis, **options)
            if result is MetricExportResult.FAILURE:
                self._guard.say(_REFUSED)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **options: object) -> None:
        with self._guard:
            self._exporter.shutdown(timeout_millis, **options)
