"""A process that uses the embedded server: says where it is, waits for the end of its input, and leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

JOIN_AND_WAIT = """
import sys
from pathlib import Path
from detent.postgres import embedded
with embedded.start(Path(sys.argv[1])) as server:
    print(server.dsn, flush=True)
    sys.stdin.read()
"""


class User:
    """Runs `script`, by default one that joins the server in `folder` and leaves when told."""

    def __init__(self, folder: Path, script: str = JOIN_AND_WAIT) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parent.parent.parent,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def says(self) -> str:
        """The next line it prints; blocks until then."""
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def leave(self) -> str:
        """Let it end; what it printed until then. Returns only when nobody holds its output open."""
        printed, _ = self._process.communicate(timeout=30)
        return printed.strip()

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self.leave()

    def interrupt(self) -> None:
        """What Ctrl-C in its terminal does."""
        os.killpg(self._process.pid, signal.SIGINT)
        self.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


def several(folder: Path, count: int) -> Sequence[User]:
    return [User(folder) for _ in range(count)]
