"""Asks the questions, and prints what came out: for people as it goes, and as one JSON object in the last line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from benchmarks import machine, targets
from benchmarks.questions import (
    backlog,
    drain,
    end_to_end,
    fan_out,
    history,
    idle,
    import_ms,
    latency,
    ready_s,
    recovery,
    retention,
    schedules,
    sequential,
    sleepers,
    steps,
    tenants,
    trigger,
)
from benchmarks.stage import Stage, set_up

QUESTIONS: Mapping[str, Callable[[Stage], object]] = {
    "trigger": trigger.answer,
    "drain": drain.answer,
    "end_to_end": end_to_end.answer,
    "latency_ms": latency.answer,
    "fan_out": fan_out.answer,
    "sequential": sequential.answer,
    "steps": steps.answer,
    "sleepers": sleepers.answer,
    "backlog": backlog.answer,
    "history": history.answer,
    "tenants": tenants.answer,
    "retention": retention.answer,
    "schedules": schedules.answer,
    "recovery_s": recovery.answer,
    "idle": idle.answer,
    "import_ms": import_ms.answer,
    "ready_s": ready_s.answer,
}
RESULTS = machine.ROOT / "benchmarks" / "results"


def main(arguments: Sequence[str]) -> int:
    """Return 0 when every question has its answer, whether or not it meets its target."""
    wanted = _parse(arguments)
    names = [name for name in QUESTIONS if name in wanted.questions or not wanted.questions]
    with set_up(wanted.scale) as stage:
        report = _about(stage)
        _say(targets.judge({"bare": report["bare"]}))
        for name in names:
            report |= _ask(name, stage, report["bare"])
    _summarise(report)
    if wanted.save:
        _save(report)
    print(json.dumps(report), flush=True)
    return 0 if all(name in report for name in names) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="question", help=", ".join(QUESTIONS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full amounts, to try whether all works")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/<date>-<commit>.json")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    return wanted


def _about(stage: Stage) -> dict[str, object]:
    return {
        "machine": machine.facts(),
        "commit": machine.commit(),
        "postgres": stage.postgres,
        **({} if stage.scale == 1 else {"scale": stage.scale}),
        "bare": dataclasses.asdict(stage.bare),
    }


def _ask(name: str, stage: Stage, bare: object) -> dict[str, object]:
    began = time.monotonic()
    try:
        answer = {name: QUESTIONS[name](stage)}
    except Exception:  # noqa: BLE001 - one question without an answer must not take away those of the others
        traceback.print_exc()
        print(f"{name}: no figure", file=sys.stderr)
        return {}
    _say([judged for judged in targets.judge({"bare": bare} | answer) if not judged.path.startswith("bare")])
    print(f"  ({name} took {time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return answer


def _say(lines: Sequence[targets.Judged]) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def _summarise(report: Mapping[str, object]) -> None:
    judged = [line for line in targets.judge(report) if line.target]
    missed = [line for line in judged if not line.is_met]
    print(f"\n{len(judged) - len(missed)} of {len(judged)} targets met", file=sys.stderr)
    _say(missed)


def _save(report: Mapping[str, object]) -> None:
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{report['commit']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"saved as {path}", file=sys.stderr)


if __name__ == "__main__":
    # Ended from outside, it still takes its processes and its folder with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
