"""What the figures should be on two cores; some as a share of another figure of the same run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

AT_LEAST = {
    "trigger.concurrent_per_s": 8_000,
    "trigger.batch_per_s": 25_000,
    "drain.runs_per_s": 8_000,
    "drain.of_bare": 0.15,
    "end_to_end.runs_per_s": 5_000,
    "backlog.ratio": 0.8,
    "tenants.ratio": 0.5,
    "history.ratio": 0.9,
    "retention.lease_ratio": 0.9,
    "retention.trigger_ratio": 0.9,
}
AT_LEAST_OF = {
    "trigger.single_per_s": (0.5, "bare.commits_per_s"),
    "trigger.four_processes_per_s": (2, "trigger.concurrent_per_s"),
    "drain.with_old_snapshot_per_s": (0.7, "drain.runs_per_s"),
}
AT_MOST_OF = {
    "steps.ms_per_step": (1.5, "bare.commit_p50_ms"),
}
AT_MOST = {
    "latency_ms.start.p50": 2,
    "latency_ms.start.p99": 6,
    "latency_ms.result.p50": 4,
    "latency_ms.result.p99": 10,
    "fan_out.seconds": 0.35,
    "sequential.ms_per_child": 4,
    "sleepers.bytes_per_run": 12_000,
    "sleepers.lateness_p99_s": 1,
    "retention.disk_ratio": 1.05,
    "schedules.seconds": 10,
    "recovery_s.runner": 1,
    "recovery_s.worker": 20,
    "idle.queries_per_s": 5,
    "import_ms": 60,
    "ready_s": 1.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A figure of the report by its path, and its target if it has one."""

    path: str
    value: float
    target: str = ""
    is_met: bool = True

    def __str__(self) -> str:
        line = f"{self.path:32}{self.value:>12,}"
        return f"{line}   {self.target}{'' if self.is_met else '   MISSED'}" if self.target else line


def judge(report: Mapping[str, object]) -> list[Judged]:
    figures = dict(_flat(report, ""))
    return [_judged(path, value, figures) for path, value in figures.items()]


def _judged(path: str, value: float, figures: Mapping[str, float]) -> Judged:
    if path in AT_MOST:
        return Judged(path=path, value=value, target=f"≤ {AT_MOST[path]:,}", is_met=value <= AT_MOST[path])
    if path in AT_LEAST:
        return Judged(path=path, value=value, target=f"≥ {AT_LEAST[path]:,}", is_met=value >= AT_LEAST[path])
    share, of = AT_LEAST_OF.get(path, (0.0, ""))
    if of in figures:
        return Judged(path=path, value=value, target=f"≥ {share} × {of}", is_met=value >= share * figures[of])
    most, of = AT_MOST_OF.get(path, (0.0, ""))
    if of in figures:
        return Judged(path=path, value=value, target=f"≤ {most} × {of}", is_met=value <= most * figures[of])
    return Judged(path=path, value=value)


def _flat(block: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(block, Mapping):
        for key, value in block.items():
            yield from _flat(value, f"{path}.{key}".lstrip("."))
    elif isinstance(block, int | float):
        yield path, block
