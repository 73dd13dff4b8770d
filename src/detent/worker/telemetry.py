"""What runs tell OpenTelemetry: a span for each attempt, those that its code begins, and its log lines.

There is one span for an attempt, in however many processes it was executed. A span is told of where it ends, by the rule that
holds for log lines: not by a replay that passes the place again, nor by a copy of the run that goes on elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer
from opentelemetry.util.types import AttributeValue

from detent.errors import PayloadError
from detent.protocol import codec, run_error
from detent.protocol.attempts import AttemptOutcome, Succeeded
from detent.protocol.environments import Environment
from detent.protocol.leases import Lease
from detent.protocol.run_error import RunError, clean
from detent.sdk import scope as run_scope
from detent.worker.attempt import Attempt, Phase
from detent.worker.log_lines import clip
from detent.worker.run_scope import AttemptScope
from detent.worker.span_ids import beginning, span_id_of, trace_id_of

NAME = "detent"
LONGEST_VALUE = 131_072
"""Characters of an attribute."""
LINKS = ("run_id", "task_identifier", "attempt_number")
"""Attributes without which nobody finds what belongs to a run."""
_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "log": SeverityNumber.INFO,
    "info": SeverityNumber.INFO,
    "warn": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}
_LARGEST_INTEGER = (1 << 63) - 1


@dataclass(slots=True, kw_only=True)
class AttemptSpan:
    """The span of an attempt, and what all that belongs to the attempt says of it."""

    span: Span
    attributes: Mapping[str, AttributeValue]
    is_over: bool = False
    """The attempt has ended here."""


class RunTelemetry:
    """Without a logger, log lines go nowhere else."""

    def __init__(self, tracer: Tracer, logger: Logger | None) -> None:
        self._tracer, self._logger = tracer, logger

    def enter(self, attempt: Attempt, environment: Environment | None) -> None:
        """Make the attempt's span the present one of this context, which is that of its code or of its hooks."""
        if attempt.span is None:
            about = _about(attempt, environment)
            # A process that is given the hooks alone has nothing to tell of the attempt.
            is_over = attempt.phase is Phase.ENDED
            span = _known(attempt.lease) if is_over else self._begin(attempt.lease, about)
            attempt.span = AttemptSpan(span=span, attributes=about)
        contexts.attach(trace.set_span_in_context(attempt.span.span))

    def _begin(self, lease: Lease, about: Mapping[str, AttributeValue]) -> Span:
        with beginning(trace_id_of(lease), span_id_of(lease.run_id, lease.attempt)):
            return self._tracer.start_span(
                lease.task_id,
                _parent(lease),
                SpanKind.CONSUMER,
                attributes=about,
                start_time=_nanoseconds(_began(lease)),
            )

    def end(self, attempt: Attempt, outcome: AttemptOutcome) -> None:
        """End the attempt's span, unless the attempt goes on elsewhere."""
        own = attempt.span
        if own is None or attempt.has_left:
            return
        own.is_over = True
        if attempt.stop_reason is not None and attempt.refusal is not None:
            fail(own.span, run_error.from_exception(attempt.refusal))
        elif not isinstance(outcome, Succeeded):
            fail(own.span, outcome.error)
        own.span.end()

    def open_span(self, name: str, fields: Mapping[str, object]) -> OpenSpan:
        return OpenSpan(self._tracer.start_span(clean(name), attributes=attributes_of(fields)))

    def log(self, attempt: Attempt, level: str, message: str, fields: Mapping[str, object] | None) -> None:
        if self._logger is None:
            return
        about = {} if attempt.span is None else attempt.span.attributes
        self._logger.emit(
            timestamp=time.time_ns(),
            context=contexts.get_current(),
            severity_number=_SEVERITIES.get(level, SeverityNumber.INFO),
            severity_text=level,
            body=clip(clean(message)),
            attributes={**attributes_of(fields or {}), **about},
        )


class OpenSpan:
    """A span that is the present one of its context until it ends."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token = contexts.attach(trace.set_span_in_context(span))

    def set(self, fields: Mapping[str, object]) -> None:
        self._span.set_attributes(attributes_of(fields))

    def end(self, error: BaseException | None) -> None:
        contexts.detach(self._token)
        if error is not None:
            fail(self._span, run_error.from_exception(error))
        self._span.end()


def present() -> AttemptSpan | None:
    """Return the span of the attempt that the calling code belongs to."""
    scope = run_scope.current()
    return scope.attempt.span if isinstance(scope, AttemptScope) else None


def is_told(span: ReadableSpan) -> bool:
    """Return whether a span that ends here is exported from here."""
    scope = run_scope.current()
    if not isinstance(scope, AttemptScope):
        return True
    own = scope.attempt.span
    if own is not None and span.context == own.span.get_span_context():
        return own.is_over
    return not (scope.attempt.has_left or scope.is_replaying)


def fail(span: Span, error: RunError) -> None:
    """Say on a span what it failed with: by what is stored of an error, for the exception itself may raise when it is asked."""
    event = {"exception.type": error.name, "exception.message": error.message, "exception.stacktrace": error.traceback}
    span.add_event("exception", event)
    span.set_attribute("error.type", error.name)
    span.set_status(StatusCode.ERROR, str(error))


def attributes_of(fields: Mapping[str, object]) -> dict[str, AttributeValue]:
    """Return fields as attributes: texts, numbers, lists of these; all else as JSON, or as it prints."""
    return {clean(name): _attribute(value) for name, value in fields.items()}


def _attribute(value: object) -> AttributeValue:
    if isinstance(value, str):
        return _cut(clean(value))
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_INTEGER:
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return [_cut(clean(each)) for each in value]
    try:
        return _cut(codec.encode(value, what="a field"))
    except PayloadError:
        return _cut(clean(str(value)))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _about(attempt: Attempt, environment: Environment | None) -> dict[str, AttributeValue]:
    """Return what a reader finds everything by that belongs to an attempt."""
    lease = attempt.lease
    about: dict[str, AttributeValue] = {
        "run_id": lease.run_id,
        "task_identifier": lease.task_id,
        "attempt_number": lease.attempt,
        "worker_version": lease.version,
    }
    if environment is not None:
        about["environment_type"] = environment.type.value
    if attempt.machine is not None:
        about["machine_name"] = attempt.machine.name
    return about


def _parent(lease: Lease) -> contexts.Context:
    if lease.parent_run_id is None:
        return contexts.Context()
    return trace.set_span_in_context(_elsewhere(lease, span_id_of(lease.parent_run_id)), contexts.Context())


def _known(lease: Lease) -> Span:
    """Return the attempt's span as others see it, who did not begin it."""
    return _elsewhere(lease, span_id_of(lease.run_id, lease.attempt))


def _elsewhere(lease: Lease, span_id: int) -> Span:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return NonRecordingSpan(SpanContext(trace_id_of(lease), span_id, is_remote=True, trace_flags=flags))


def _began(lease: Lease) -> float:
    """Return when the attempt began; of a later one that is replayed, only for how long it has executed is known."""
    now = time.time()
    if not lease.has_journal:
        return now
    return min(now, lease.started_at.timestamp()) if lease.attempt == 1 else now - lease.attempt_active


def _nanoseconds(moment: float) -> int:
    return int(moment * 1_000_000_000)
