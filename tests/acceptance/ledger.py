"""What tasks really did, told by themselves and kept without detent: a line appended to a file for each effect."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from detent import Context

VARIABLE = "LEDGER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    step: str
    run: str
    attempt: int
    pid: int
    detail: str = ""


def note(step: str, ctx: Context, detail: str = "") -> None:
    """Called by tasks. One write to a file opened with O_APPEND is whole, whoever dies or writes at the same time."""
    write(step, run=ctx.run.id, attempt=ctx.attempt.number, detail=detail)


def write(step: str, *, run: str = "", attempt: int = 0, detail: str = "") -> None:
    line = json.dumps({"step": step, "run": run, "attempt": attempt, "pid": os.getpid(), "detail": detail}) + "\n"
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Ledger:
    """The file as the test reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._file = path.open("rb")
        self._rest = b""
        self._effects: list[Effect] = []

    def close(self) -> None:
        self._file.close()

    @property
    def effects(self) -> list[Effect]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        self._effects += [Effect(**json.loads(line)) for line in lines]
        return self._effects

    def of(self, step: str, run: str | None = None) -> list[Effect]:
        return [effect for effect in self.effects if effect.step == step and run in {None, effect.run}]

    def times(self, step: str) -> Counter[tuple[str, int]]:
        """How often each attempt of each run took this step."""
        return Counter((effect.run, effect.attempt) for effect in self.of(step))
