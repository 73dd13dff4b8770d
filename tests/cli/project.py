"""A project on disk, its `detent` commands as processes, and its `detent dev`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

import psutil

from tests.nursery import Ended, Nursery, runners_of

PATIENCE = 30.0
DETENT = (sys.executable, "-m", "detent")


class OverdueError(AssertionError):
    """What a test waited for did not come."""


@dataclass(frozen=True, slots=True)
class Project:
    nursery: Nursery
    root: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for its commands; DETENT_DATABASE_URL is unset unless it is here."""

    def write(self, name: str, text: str) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def detent(self, *arguments: str, folder: str = ".") -> Ended:
        return self.nursery.run(
            "detent", arguments, folder=self.root / folder, environment=self.environment(), timeout=PATIENCE
        )

    def execute(self, command: Sequence[str], *, folder: str = ".") -> subprocess.CompletedProcess[str]:
        """Carry out a command that starts from nothing, as a user's does."""
        return subprocess.run(
            command, cwd=self.root / folder, env=self.environment(), capture_output=True, text=True, timeout=PATIENCE,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        """Execute a command with --json; return what it printed."""
        done = self.detent(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DETENT_")}
        return kept | self.variables

    @contextmanager
    def serving(self, *arguments: str, command: str = "dev") -> Iterator[Serving]:
        """Run `detent dev`, or `detent worker`, until the end of the block."""
        with Serving(self, [command, *arguments]) as serving:
            yield serving


class Serving:
    """A serving command as a process, and the lines that it prints."""

    def __init__(self, project: Project, arguments: Sequence[str]) -> None:
        printed, output = os.pipe()
        with open(output, "wb") as file:
            self.process = project.nursery.spawn(
                "detent", arguments, folder=project.root, environment=project.environment(), output=file
            )
        self._printed = os.fdopen(printed)
        self.seen: list[str] = []
        self._lines: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        for line in self._printed:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._reader.join(PATIENCE)
        self._printed.close()

    def line(self, *parts: str) -> str:
        """Wait for a line that holds all of these, and return it."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except Empty:
                raise OverdueError(f"no line with {parts} in:\n" + "\n".join(self.seen)) from None
            if line is None:
                raise OverdueError(f"it ended without a line with {parts}:\n" + "\n".join(self.seen))
            self.seen.append(line)
            if all(part in line for part in parts):
                return line

    def event(self, kind: str, **facts: object) -> dict[str, Any]:
        """Wait for a line of JSON of this kind and with these facts (with `--json`)."""
        while True:
            told: dict[str, Any] = json.loads(self.line(f'"kind": "{kind}"'))
            if all(told[name] == value for name, value in facts.items()):
                return told

    def runners(self) -> list[psutil.Process]:
        return runners_of(self.process.pid)

    def stop(self) -> int:
        """Drain it; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)
