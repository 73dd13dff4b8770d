"""Telemetry from the processes that execute runs, into a file that stands for a collector."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.project import Project

CONFIG = """
from detent import Telemetry, define_config
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

class Instrumentation:
    def instrument(self, tracer_provider, **_):
        import statistics
        mean = statistics.mean
        def traced(numbers):
            with tracer_provider.get_tracer("statistics").start_as_current_span("mean"):
                return mean(numbers)
        statistics.mean = traced

config = define_config(
    project="shop",
    telemetry=Telemetry(
        instrumentations=[Instrumentation()],
        exporters=[ConsoleSpanExporter(out=open("spans", "a"), formatter=lambda span: span.to_json(indent=None) + "\\n")],
        resource={"team": "money"},
    ),
)
"""
TASKS = """
from statistics import mean
from detent import task

@task
async def parent() -> str:
    return await child.call(5)

@task(isolation="process")
def child(n: int) -> str:
    return f"{mean([n, n])}"
"""


def test_runs_of_all_processes_of_a_worker_tell_of_themselves_before_these_end(shop: Project) -> None:
    shop.write("detent_config.py", CONFIG)
    shop.write("tasks/some.py", TASKS)
    with shop.serving("--runners", "1", command="dev") as dev:
        dev.line(" ready: ")
        assert shop.detent("trigger", "parent", "--wait").stdout == '"5"\n'
        assert dev.stop() == 0
    spans = {span["name"]: span for span in map(json.loads, (shop.root / "spans").read_text().splitlines())}
    assert spans.keys() == {"mean", "child", "parent"}
    assert [name_of_parent(spans, name) for name in ("mean", "child", "parent")] == ["child", "parent", None]
    assert len({span["context"]["trace_id"] for span in spans.values()}) == 1
    assert spans["child"]["resource"]["attributes"].items() >= {"service.name": "shop", "team": "money"}.items()


def name_of_parent(spans: dict[str, dict[str, Any]], name: str) -> str | None:
    ids = {span["context"]["span_id"]: name for name, span in spans.items()}
    return ids.get(spans[name]["parent_id"])
