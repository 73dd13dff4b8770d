"""`make demo`: `detent dev` counts Python's standard library, loses a process to `kill -9` on the way, and gets it right.

It needs nothing but an installed detent: the database is the one that detent brings, in a temporary folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from detent import JsonValue, Run, RunHandle, runs, tasks

HERE = Path(__file__).parent
SHARE_DONE_BEFORE_KILL = 0.3
POLL_SECONDS = 0.1
PATIENCE = 50.0
"""Seconds after which something must have gone wrong."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)


class DemoError(Exception):
    """What the demo promises did not happen."""


# ---- detent dev, and what it says ------------------------------------------------------------------------------------


@dataclass
class Worker:
    """`detent dev --json`, and what its lines have told so far."""

    process: Process
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    starts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each attempt of each run was begun: more than once when its process died under it."""
    ends: Counter[str] = field(default_factory=Counter)
    """How often each run was completed."""

    async def follow(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            if told["kind"] == "ready":
                self.ready.set()
            elif told["kind"] == "started":
                self.starts[told["run_id"], told["attempt"]] += 1
            elif told["kind"] == "succeeded":
                self.ends[told["run_id"]] += 1

    @property
    def recovered(self) -> set[str]:
        """Runs whose process died under them, and that were begun again elsewhere."""
        return {run_id for (run_id, _), times in self.starts.items() if times > 1}

    def kill_runner(self) -> int:
        """Kill the busier of the processes that execute runs, as hard as it gets; return its id."""
        runners = [child for child in psutil.Process(self.process.pid).children() if "runner" in child.cmdline()]
        runner = max(runners, key=lambda child: child.cpu_times().user)
        runner.kill()
        return runner.pid


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Worker]:
    """Run `detent dev` on the census in a folder; drain it in the end."""
    command = [sys.executable, "-m", "detent", "dev", str(HERE / "tasks" / "census.py"), "--json", "--no-reload"]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=PIPE)
    worker = Worker(process)
    following = asyncio.create_task(worker.follow())
    try:
        await _ready(worker, following)
        yield worker
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        code = await process.wait()
        await following
    if code:
        raise DemoError(f"`detent dev` ended with exit code {code}")


async def _ready(worker: Worker, following: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(worker.ready.wait())
    await asyncio.wait([ready, following], return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if not worker.ready.is_set():
        raise DemoError("`detent dev` did not start")


# ---- the census ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    parent: Run[JsonValue]
    children: list[Run[JsonValue]]
    killed: int


async def take_census(worker: Worker) -> Outcome:
    """Trigger the census, kill a runner when part of it is done, and return what came of it."""
    handle = await tasks.trigger("census")
    killed = 0
    with Progress(
        TextColumn("  counting"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
        console=console,
    ) as progress:  # fmt: skip
        bar = progress.add_task("", total=None)
        while not (parent := await runs.retrieve(handle)).is_completed:
            children = await children_of(handle)
            done = sum(child.is_completed for child in children)
            progress.update(bar, completed=done, total=len(children) or None, description=_states(children))
            if not killed and children and done >= SHARE_DONE_BEFORE_KILL * len(children):
                killed = worker.kill_runner()
                progress.print(f"  [bold red]kill -9 {killed}[/]: one of the two processes that execute runs is gone")
            await asyncio.sleep(POLL_SECONDS)
        children = await children_of(handle)
        progress.update(bar, completed=sum(child.is_completed for child in children), description="")
    return Outcome(parent, children, killed)


async def children_of(handle: RunHandle[JsonValue]) -> list[Run[JsonValue]]:
    return list(await runs.list(parent_run_id=handle.id, limit=100))


def _states(children: list[Run[JsonValue]]) -> str:
    counted = Counter(child.status.value.lower() for child in children if not child.is_completed)
    return "  ".join(f"{count} {status}" for status, count in sorted(counted.items()))


# ---- the check -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def counting_without_detent() -> AsyncIterator[asyncio.Task[dict[str, list[int]]]]:
    """Count the same in a process that knows nothing of detent."""

    async def count() -> dict[str, list[int]]:
        process = await asyncio.create_subprocess_exec(sys.executable, str(HERE / "plain_count.py"), stdout=PIPE)
        output, _ = await process.communicate()
        found: dict[str, list[int]] = json.loads(output)
        return found

    task = asyncio.create_task(count())
    try:
        yield task
    finally:
        task.cancel()


def problems(outcome: Outcome, worker: Worker, expected: dict[str, list[int]]) -> list[str]:
    """Return what is not as it must be."""
    found = [f"run {child.id} is {child.status.value}: {child.error}" for child in outcome.children if not child.is_success]
    counts = {str(_output(child)["package"]): numbers(child) for child in outcome.children if child.is_success}
    found += [f"{name}: {counts.get(name)} instead of {count}" for name, count in expected.items() if counts.get(name) != count]
    found += [f"{name} should not be there" for name in counts.keys() - expected.keys()]
    total = [sum(column) for column in zip(*expected.values(), strict=True)]
    if not outcome.parent.is_success or numbers(outcome.parent) != total:
        found.append(f"the parent run is {outcome.parent.status.value} with {outcome.parent.output} instead of {total}")
    found += [f"run {run_id} was completed {times} times" for run_id, times in worker.ends.items() if times > 1]
    if not outcome.killed:
        found.append("no runner was killed: everything was over too soon")
    elif not worker.recovered:
        found.append("the kill hit no run: nothing had to recover")
    if not any(child.attempt > 1 for child in outcome.children):
        found.append("no run was retried")
    if not any(child.waits for child in outcome.children):
        found.append("no run waited")
    return found


def numbers(run: Run[JsonValue]) -> list[int]:
    output = _output(run)
    return [int(str(output[name])) for name in ("files", "functions", "classes", "lines")]


def _output(run: Run[JsonValue]) -> dict[str, JsonValue]:
    assert isinstance(run.output, dict), run.error
    return run.output


# ---- what is shown ---------------------------------------------------------------------------------------------------


def show_results(outcome: Outcome, worker: Worker, expected: dict[str, list[int]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for name in ("package", "files", "functions", "classes", "lines", "check", "s", "what befell it"):
        is_text = name in {"package", "check", "what befell it"}
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True, max_width=16 if name == "package" else None)
    for child in sorted(outcome.children, key=_package):
        count = numbers(child) if child.is_success else [0, 0, 0, 0]
        check = "[green]equal[/]" if count == expected.get(_package(child)) else "[bold red]WRONG[/]"
        shown = [f"{number:,}" for number in count]
        table.add_row(_package(child), *shown, check, f"{duration(child):.1f}", ", ".join(_adventures(child, worker)))
    console.print(table)


def _adventures(child: Run[JsonValue], worker: Worker) -> Iterator[str]:
    if child.attempt > 1:
        yield f"{child.attempt} attempts"
    if child.waits:
        yield "waited"
    if child.id in worker.recovered:
        yield "[yellow]recovered[/]"


def _package(run: Run[JsonValue]) -> str:
    return str(run.payload["name"]) if isinstance(run.payload, dict) else ""


def duration(run: Run[JsonValue]) -> float:
    return (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else 0.0


def show_summary(outcome: Outcome, worker: Worker) -> None:
    everything = [outcome.parent, *outcome.children]
    durations = sorted(duration(child) for child in outcome.children)
    console.print(
        f"\n[bold]{len(everything)} runs[/]: one parent, {len(outcome.children)} children\n"
        f"  attempts    {sum(run.attempt for run in everything)}, "
        f"for {sum(run.attempt > 1 for run in everything)} runs failed once on purpose and were retried\n"
        f"  waits       {sum(run.waits for run in everything)}, holding no slot and no connection\n"
        f"  durations   {durations[len(durations) // 2]:.1f} s median, {durations[-1]:.1f} s longest, "
        f"{duration(outcome.parent):.1f} s in all\n"
        f"  recoveries  {len(worker.recovered)} runs lost their process to kill -9 and were begun again; "
        f"none was completed twice"
    )


async def main(folder: Path) -> int:
    began = time.monotonic()
    console.print("starting `detent dev`, with the PostgreSQL that it brings …")
    async with counting_without_detent() as plain, serving(folder) as worker:
        console.print(f"ready after {time.monotonic() - began:.1f} s; triggering the census of Python's standard library")
        async with asyncio.timeout(PATIENCE):
            outcome = await take_census(worker)
            expected = await plain
        show_results(outcome, worker, expected)
        show_summary(outcome, worker)
        found = problems(outcome, worker, expected)
    for problem in found:
        console.print(f"[bold red]wrong:[/] {problem}", markup=True)
    if not found:
        passed = time.monotonic() - began
        console.print(f"\n[bold green]All right[/] after {passed:.1f} s: each count equals one made without detent.")
        console.print("The census is one of the things that this magazine does: examples/README.md tells the others.")
    return 1 if found else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="detent-demo-", ignore_cleanup_errors=True) as temporary:
        # Open to the account that runs the database when you are root; the data itself is not.
        Path(temporary).chmod(0o755)
        os.environ.pop("DETENT_DATABASE_URL", None)
        os.chdir(temporary)
        try:
            sys.exit(asyncio.run(main(Path(temporary))))
        except (DemoError, TimeoutError) as error:
            console.print(f"[bold red]wrong:[/] {error or f'it was not over after {PATIENCE:g} s'}")
            sys.exit(1)
