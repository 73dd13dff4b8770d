"""What programs really did, noted in a file outside of detent and its database: a line for each effect."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.ledger import VARIABLE

from detent import Context


@dataclass(frozen=True, slots=True)
class Effect:
    what: str
    """`executed`: the body of a step; `recorded`: its result was given to the program; `token`: one that waits for somebody."""
    run: str
    attempt: int
    name: str
    detail: str
    pid: int
    at: float


def note(what: str, name: str, detail: str) -> None:
    """One write to a file opened with O_APPEND is whole, whoever dies or writes at the same time."""
    ctx = Context.current()
    fields = (what, ctx.run.id, ctx.attempt.number, name, detail, os.getpid(), time.time())
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, (json.dumps(fields) + "\n").encode())
    finally:
        os.close(file)


class Effects:
    """The file, as it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._rest = path, 0, b""
        self.all: list[Effect] = []

    def new(self) -> list[Effect]:
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        self._read += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        found = [Effect(*json.loads(line)) for line in lines]
        self.all += found
        return found
