"""The settings of the magazine."""

import os

from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from detent import Console, Machine, Retention, Retries, Retry, Telemetry, define_config

SPANS = os.environ.get("MAGAZINE_SPANS")
"""A file for the spans of all runs, in the place of a collector."""

config = define_config(
    project="magazine",
    dirs=["tasks"],
    ignore_patterns=["draft_*.py"],
    retries=Retries(default=Retry(max_attempts=3, min_timeout="500ms")),
    max_duration="10m",
    retention=Retention(default="30d"),
    machines={"darkroom": Machine(cpu=0.5, memory_gb=0.5)},
    process_keep_alive=20,
    console=Console(echo=False),
    log_level="debug",
    telemetry=Telemetry(exporters=[ConsoleSpanExporter(out=open(SPANS, "a"))] if SPANS else []),  # noqa: SIM115 - the process closes it
)
