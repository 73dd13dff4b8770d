"""`Telemetry`: where the spans, metrics and log lines of runs go besides, as objects of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import AttributeValue

EXTRA = "detent[telemetry]"
_INTERFACES = {
    "exporters": ("opentelemetry.sdk.trace.export", "SpanExporter"),
    "log_exporters": ("opentelemetry.sdk._logs.export", "LogRecordExporter"),
    "metric_exporters": ("opentelemetry.sdk.metrics.export", "MetricExporter"),
    "metric_readers": ("opentelemetry.sdk.metrics.export", "MetricReader"),
    "span_processors": ("opentelemetry.sdk.trace", "SpanProcessor"),
}
"""What each list holds."""


class Instrumentor(Protocol):
    """A library's instrumentation, such as those of the packages `opentelemetry-instrumentation-…`."""

    def instrument(self, **providers: object) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Where spans, metrics and log lines of runs go, besides the lines that are kept with each run. Needs `detent[telemetry]`.

    Objects of OpenTelemetry, made with arguments of their constructors. They are used in the processes that execute runs alone.
    `define_config` raises `ConfigError` for one that does not fit its list, and where OpenTelemetry is not installed.

    Example::

        config = define_config(telemetry=Telemetry(exporters=[ConsoleSpanExporter()], resource={"service.name": "shop"}))
    """

    instrumentations: Sequence[Instrumentor] = ()
    """Instrumentations of libraries: switched on before the files of tasks are loaded."""
    exporters: Sequence[SpanExporter] = ()
    log_exporters: Sequence[LogRecordExporter] = ()
    metric_exporters: Sequence[MetricExporter] = ()
    """Given all metrics once a minute, and at the end of the process."""
    metric_readers: Sequence[MetricReader] = ()
    """For another interval, or for metrics that are fetched."""
    span_processors: Sequence[SpanProcessor] = ()
    """Given each span in their order, before any exporter."""
    resource: Mapping[str, AttributeValue] = field(default_factory=dict)
    """What is true of all of them. `service.name` is the project, unless it says otherwise."""

    def __post_init__(self) -> None:
        for name in ("instrumentations", *_INTERFACES):
            given = getattr(self, name)
            if isinstance(given, list):
                object.__setattr__(self, name, tuple(given))

    @property
    def is_on(self) -> bool:
        """Whether anything is told to anybody."""
        return any(getattr(self, each.name) for each in fields(self) if each.name != "resource")

    def check(self) -> None:
        """Raise `ValueError` saying what is wrong with it, in words that begin with the name of the part."""
        if not is_installed():
            raise ValueError(f'it needs OpenTelemetry, which is not installed: install "{EXTRA}"')
        for number, each in enumerate(_listed(self, "instrumentations")):
            if isinstance(each, type) or not callable(getattr(each, "instrument", None)):
                raise ValueError(
                    f"instrumentations[{number}]={each!r} must be an instrumentation, with a method instrument()"
                )
        for name, (module, interface) in _INTERFACES.items():
            for number, each in enumerate(_listed(self, name)):
                if not isinstance(each, getattr(import_module(module), interface)):
                    raise ValueError(f"{name}[{number}]={each!r} must be a {interface} of {module}{_hint(each)}")
        _check_resource(self.resource)

    def dismiss(self) -> None:
        """End the threads that readers of metrics have started by being made: in this process no run is executed."""
        if self.metric_readers:
            from opentelemetry.sdk.metrics import MeterProvider

            # Only a reader that belongs to a provider ends without a warning.
            MeterProvider(self.metric_readers, shutdown_on_exit=False).shutdown()


def is_installed() -> bool:
    """Return whether OpenTelemetry's SDK can be imported."""
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def _listed(telemetry: Telemetry, name: str) -> Sequence[object]:
    given: object = getattr(telemetry, name)
    if not isinstance(given, tuple):
        raise ValueError(f"{name}={given!r} must be a list")
    return given


def _hint(given: object) -> str:
    if isinstance(given, type):
        return "; this is a class: call it"
    fitting = [
        name
        for name, (module, interface) in _INTERFACES.items()
        if isinstance(given, getattr(import_module(module), interface))
    ]
    return f"; this one goes into {fitting[0]}" if fitting else ""


def _check_resource(resource: object) -> None:
    if not isinstance(resource, Mapping) or not all(isinstance(name, str) and name for name in resource):
        raise ValueError(f'resource={resource!r} must be attributes by their names, as in {{"service.name": "shop"}}')
    for name, value in resource.items():
        values = value if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(each, str | bool | int | float) for each in values):
            raise ValueError(f"resource: {name}={value!r} must be a text, a number, a bool, or a list of one of these")
