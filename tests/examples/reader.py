"""A reader of one page, who saves its files, types its commands and executes its snippets, from the top to the end.

Where a page says `detent init`, everything happens on the embedded database and the `detent dev` that the page itself starts;
else on a database of the test, with a worker that has the tasks of the page. Time passes quickly: what would wait for minutes
is due at once.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psycopg

from detent.migrations.connection import target
from detent.postgres import embedded
from tests.database import TESTING_SCHEMA
from tests.examples.likeness import Ids, difference
from tests.examples.page import ROOT, Block
from tests.nursery import PATH, Child, Nursery
from tests.pooler import direct, variables

URL = "DETENT_DATABASE_URL"
DEADLINE = 60.0
POLL = 0.02
PATIENT = 0.3
"""Seconds for which something must be under way before time is moved for it."""
DETENT = "tests.acceptance.hurried"

_INSTALLS = re.compile(r"(python3 -m venv|pip install|mkdir|git clone) ")
"""Done already, by whoever runs the tests."""
_MAKES = re.compile(r"make \w+$")
_BENCHMARKS = re.compile(r"python -m benchmarks")
"""Take minutes."""
_ALONE = re.compile(r"detent [^|;&<>$]*$")
"""Needs no shell."""
_SERVES = re.compile(r"detent (dev|worker)(?! --help)\b")

# To the next moment at which something is due, but for delays: a page may show a run that is still delayed. Nor does a token
# time out before the run that waits for it has suspended, with the timers of its own that may be due long before.
_HURRY = """
update testing.clock set shift = shift + due.at - detent.now()
from (
  select min(due_at) as at from (
    select due_at from detent.runs where status <> 'DELAYED'
    union all select due_at from detent.waitpoints where completed_at is null and exists (
      select from detent.waits join detent.runs on runs.id = run_id where waitpoint_id = waitpoints.id and status = 'WAITING')
    union all select opens_at from detent.gates where scope = 'rate'
  ) as each
) as due
where due.at > detent.now()
"""
NEVER_RUN = """
select distinct task_id from detent.version_tasks where file_path <> 'tasks/hello.py'
except (select task_id from detent.history union select task_id from detent.runs)
"""


class Reader:
    def __init__(
        self, nursery: Nursery, folder: Path, page_dsn: str | None, production_dsn: Callable[[], str]
    ) -> None:
        """*page_dsn* is None for a page that makes a project with a database of its own."""
        self._nursery = nursery
        self.folder, self._page_dsn, self._production_dsn = folder, page_dsn, production_dsn
        self._dsn = page_dsn
        self._environment = dict(os.environ) | {"PYTHONPATH": PATH}
        self._environment.pop(URL, None)
        if page_dsn is not None:
            self._environment |= variables(page_dsn) | {"DETENT_ENCRYPTION_KEY": "00" * 32}
        self._ids = Ids()
        self._shown_names: dict[str, str] = {}
        """Names of databases, as they are and as the page has them."""
        self._unsaved: list[Block] = []
        self._servers: list[tuple[Child, Path]] = []
        self._snippets: Snippets | None = None

    # ---- what a page holds ----

    def read(self, block: Block) -> None:
        if block.file is not None and self._environment.get(URL) is None and not (self.folder / "tasks").exists():
            self._unsaved.append(block)  # shown before there is a project: "save it", says the page later
        elif block.file is not None:
            self._save(block.file, block.text)
        elif block.language == "python":
            self.save_all(self._unsaved)
            self._unsaved.clear()
            self._execute(block)
        elif block.language == "console":
            for command, shown in block.commands():
                self._type(command, shown, block.place)

    def save_all(self, blocks: list[Block]) -> None:
        for block in blocks:
            if block.file is not None:
                self._save(block.file, block.text)

    def serve(self) -> None:
        self._serve("detent worker --runners 1", [], "the page's worker")

    def tasks_never_run(self) -> set[str]:
        """The tasks that were shown and that nothing on the page has triggered."""
        if self._dsn is None:
            return set()
        with psycopg.connect(direct(self._dsn), autocommit=True) as connection:
            return {task_id for (task_id,) in connection.execute(NEVER_RUN)}

    def _save(self, name: str, text: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text)
        if self._servers:
            self._until(lambda: "reloaded: " in self._log(-1), "the reload")

    # ---- commands ----

    def _type(self, command: str, shown: list[str], place: str) -> None:
        if _INSTALLS.match(command) or _BENCHMARKS.match(command):
            return
        if _MAKES.match(command):
            subprocess.run(["make", "--dry-run", *command.split()[1:]], cwd=ROOT, check=True, capture_output=True)
        elif command.startswith(f"export {URL}="):
            dsn = self._production_dsn()
            self._environment |= variables(dsn)
            self._dsn = dsn if self._dsn == self._page_dsn else self._dsn
            self._shown_names[target(dsn)] = target(command.removeprefix(f"export {URL}="))
        elif command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self._environment[name] = value
        elif _SERVES.match(command) and not any(line.startswith("error: ") for line in shown):
            self._serve(command, shown, place)
        else:
            self._run(command, shown, place)

    def _run(self, command: str, shown: list[str], place: str) -> None:
        typed = self._ids.put_into(command)
        with self._hurrying():
            code, printed = self._in_nursery(typed) if _ALONE.match(typed) else self._in_shell(typed)
        if shown:
            self._compare(shown, printed.splitlines(), f"{place}: {command}")
        is_error = any(line.startswith("error: ") for line in shown)
        assert (code != 0) == is_error, f"{place}: {command}: exit code {code}\n{printed}"

    def _in_nursery(self, typed: str) -> tuple[int, str]:
        arguments = shlex.split(typed)[1:]
        with tempfile.TemporaryFile() as output:
            with self._spawn(arguments, output) as child:
                code = child.wait(DEADLINE)
            output.seek(0)
            return code, output.read().decode()

    def _spawn(self, arguments: Sequence[str], output: IO[bytes]) -> Child:
        return self._nursery.spawn(
            DETENT, arguments, folder=self.folder, environment=self._environment, output=output
        )

    def _in_shell(self, typed: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", f'detent() {{ {shlex.quote(sys.executable)} -m {DETENT} "$@"; }}\n{typed}'],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return done.returncode, done.stdout

    def _serve(self, command: str, shown: list[str], place: str) -> None:
        log = self.folder.parent / f"{self.folder.name}-{len(self._servers)}.log"
        with log.open("wb") as output:
            server = self._spawn(shlex.split(command)[1:], output)
        self._servers.append((server, log))
        self._until(lambda: " ready: " in self._log(-1), f"{place}: {command}")
        if shown:
            self._compare([*shown, "…"], self._log(-1).splitlines(), f"{place}: {command}")
        if self._dsn is None and (dsn := embedded.running(self.folder / ".detent")):
            self._dsn = dsn
            with psycopg.connect(direct(dsn), autocommit=True) as connection:
                connection.execute(TESTING_SCHEMA)

    def _log(self, number: int) -> str:
        return _text(self._servers[number][1]) if self._servers else ""

    def _compare(self, shown: list[str], printed: list[str], place: str) -> None:
        for name, shown_name in self._shown_names.items():
            printed = [line.replace(name, shown_name) for line in printed]
        wrong = difference(shown, printed, self._ids)
        assert not wrong, f"{place}\n{wrong}"

    # ---- snippets ----

    def _execute(self, block: Block) -> None:
        self._snippets = self._snippets or Snippets(self._nursery, self.folder, self._environment)
        with self._hurrying():
            self._snippets.ask(self._ids.put_into(block.text))
            self._until(self._snippets.has_answered, block.place)
        wrong = self._snippets.answer()
        assert not wrong, f"{block.place}\n{wrong}\n{self._log(0)}"

    # ---- time ----

    @contextmanager
    def _hurrying(self) -> Iterator[None]:
        """Move the clock of the page's database to what is due next, for as long as this lasts."""
        over = threading.Event()
        thread = threading.Thread(target=self._hurry, args=(over, self._dsn), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @staticmethod
    def _hurry(over: threading.Event, dsn: str | None) -> None:
        if over.wait(PATIENT) or dsn is None:
            return
        with suppress(psycopg.Error), psycopg.connect(direct(dsn), autocommit=True) as connection:
            while not over.wait(POLL):
                connection.execute(_HURRY)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when *condition* holds; fail when it does not in time, or a server has ended that it may wait for."""
        end = time.monotonic() + DEADLINE
        while not condition():
            for server, log in self._servers:
                assert server.poll() is None, f"{what}: a server has ended, with {server.returncode}\n{_text(log)}"
            assert time.monotonic() < end, f"waited in vain for {what}\n{self._log(-1)}"
            time.sleep(POLL)

    # ---- the end ----

    def close(self) -> None:
        if self._snippets is not None:
            self._snippets.close()
        for server, _ in self._servers:
            server.send_signal(signal.SIGTERM)
        for server, log in self._servers:
            try:
                server.wait(DEADLINE)
            finally:
                server.kill()
            log.unlink()


class Snippets:
    """The process that executes the snippets of a page."""

    def __init__(self, nursery: Nursery, folder: Path, environment: Mapping[str, str]) -> None:
        (ours, theirs), (answers, answering) = os.pipe(), os.pipe()
        self._asks, self._answers = os.fdopen(theirs, "w"), os.fdopen(answers)
        with open(ours, "rb") as stdin, open(answering, "wb") as output, open(2, "wb", closefd=False) as stderr:
            self._process = nursery.spawn(
                "tests.examples.snippets", [], folder=folder, environment=environment,
                stdin=stdin, output=output, stderr=stderr,
            )  # fmt: skip

    def ask(self, text: str) -> None:
        """Have a snippet executed."""
        print(json.dumps(text), file=self._asks, flush=True)

    def has_answered(self) -> bool:
        return bool(select.select([self._answers], [], [], 0)[0])

    def answer(self) -> str:
        """What went wrong with the snippet, empty for nothing."""
        answer = self._answers.readline()
        assert answer, "the process of the snippets has died"
        return str(json.loads(answer))

    def close(self) -> None:
        self._asks.close()
        self._process.wait(DEADLINE)
        self._answers.close()


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def needs_worker(blocks: list[Block]) -> bool:
    """Whether a page shows tasks, and starts nothing that serves them."""
    has_tasks = any(block.file is not None and block.file.startswith("tasks/") for block in blocks)
    return has_tasks and not any(_SERVES.match(command) for command in _commands(blocks))


def makes_project(blocks: list[Block]) -> bool:
    return any(command.startswith("detent init") for command in _commands(blocks))


def _commands(blocks: list[Block]) -> list[str]:
    return [command for block in blocks if block.language == "console" for command, _ in block.commands()]


