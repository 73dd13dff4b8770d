"""`detent doctor` finds what is wrong in a set-up, and says how to mend it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from detent.cli import database_checks, health_checks, project_checks
from detent.cli.finding import Finding, Verdict
from detent.engine.backend import connect
from detent.engine.reach import Hearing, Reach
from detent.protocol import ids
from detent.protocol.flow import LimitKind
from detent.protocol.health import (
    ForsakenTask,
    HealthRecord,
    LateRun,
    PausedLimit,
    UndeclaredLimit,
    WorkerHealth,
)
from detent.protocol.registration import WorkerRegistration
from detent.protocol.retention import RetentionRecord
from detent.protocol.runs import WaitingReason
from detent.protocol.sessions import SessionOpening
from detent.sdk.registry import registry
from tests.cli.conftest import Detent, Done
from tests.pooler import direct

CONFIG = 'from detent import define_config\nconfig = define_config(project="shop", dirs=["tasks"])\n'
TASK = "from detent import task\n\n@task\nasync def {name}() -> None: ...\n"


@pytest.fixture(autouse=True)
def unloaded(tmp_path: Path) -> Iterator[None]:
    """What a doctor loads, it loads for good: it is a process of its own."""
    tasks, path = registry.all(), list(sys.path)
    registry.clear()
    yield
    registry.clear()
    for task in tasks:
        registry.add(task)
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A sound project in the folder in which commands are given."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "detent_config.py").write_text(CONFIG)
    (tmp_path / "tasks" / "mail.py").write_text(TASK.format(name="send"))
    return tmp_path


@pytest.fixture
async def live_worker(dsn: str) -> None:
    """What a worker does when it starts."""
    backend = connect(dsn)
    version = await backend.register_worker(WorkerRegistration(tasks=()))
    await backend.open_session(SessionOpening(session_id=ids.new_session_id(), version=version, worker="host:1"))
    await backend.maintenance.keep_house()
    await backend.close()


@dataclass(frozen=True, slots=True)
class Doctor:
    detent: Detent

    def finds(self, code: int) -> list[dict[str, str]]:
        """Return what is not in order; the exit code is that."""
        done = self.look()
        assert done.code == code, done.out
        return [finding for finding in done.json if finding["verdict"] != "ok"]

    def look(self) -> Done:
        return self.detent("doctor", "--json")


@pytest.fixture
def doctor(at_database: Detent) -> Doctor:
    return Doctor(at_database)


def said(findings: list[dict[str, str]], check: str) -> list[str]:
    return [f"{finding['verdict']}: {finding['text']}" for finding in findings if finding["check"] == check]


# ---- the whole ----


@pytest.mark.usefixtures("shop", "live_worker")
def test_sound_set_up_is_ok_throughout(doctor: Doctor) -> None:
    assert doctor.finds(code=0) == []
    checks = [finding["check"] for finding in doctor.look().json]
    assert checks == [
        "python", "config", "tasks", "database", "rights", "clock", "wake-ups", "schema", "workers", "slots", "retention",
        "envvars",
    ]  # fmt: skip


@pytest.mark.usefixtures("shop", "live_worker")
def test_people_get_a_line_a_check(at_database: Detent) -> None:
    lines = at_database("doctor").out.splitlines()
    assert [line.split()[:2] for line in lines][:3] == [["ok", "python"], ["ok", "config"], ["ok", "tasks"]]
    assert lines[2].endswith("1 in 1 files: send")


@pytest.mark.usefixtures("shop")
def test_warning_leaves_the_exit_code_at_0(doctor: Doctor) -> None:
    assert said(doctor.finds(code=0), "workers") == [
        'warning: no worker lives in environment "dev": start `detent dev`, or `detent worker` in production'
    ]


# ---- the project ----


def test_unknown_key_of_the_config_is_wrong(doctor: Doctor, shop: Path) -> None:
    (shop / "detent_config.py").write_text(CONFIG.replace("dirs", "dir"))
    (finding,) = said(doctor.finds(code=1), "config")
    assert "detent_config.py:2: unknown key 'dir'; did you mean \"dirs\"?" in finding


def test_each_file_that_does_not_load_is_named_with_its_line(doctor: Doctor, shop: Path) -> None:
    (shop / "tasks" / "broken.py").write_text("import os\nimport nothing_here\n")
    (shop / "tasks" / "twice.py").write_text(TASK.format(name="send"))
    (shop / "tasks" / "typo.py").write_text("def (:\n")
    broken, twice, typo = said(doctor.finds(code=1), "tasks")
    assert broken.startswith(
        "wrong: cannot load tasks/broken.py:2: ModuleNotFoundError: No module named 'nothing_here'"
    )
    assert 'task "send" in tasks/twice.py:3 is already defined in tasks/mail.py:3' in twice
    assert typo.startswith("wrong: cannot load tasks/typo.py:1: SyntaxError")


def test_what_task_files_print_does_not_spoil_the_json(doctor: Doctor, shop: Path) -> None:
    (shop / "tasks" / "noisy.py").write_text('print("noise")\n' + TASK.format(name="noisy"))
    assert doctor.look().json


def test_project_without_tasks_is_told_what_to_write(doctor: Doctor, shop: Path) -> None:
    (shop / "tasks" / "mail.py").write_text("")
    assert said(doctor.finds(code=0), "tasks") == ["warning: 1 files define no task: put @task above a function"]


def test_folder_that_is_no_project_is_told_of_init(doctor: Doctor) -> None:
    found = doctor.finds(code=1)
    assert "make one with `detent init`" in said(found, "config")[0]
    assert said(found, "tasks")[0].startswith("wrong: no tasks found: ")


def test_python_that_is_too_old_is_wrong() -> None:
    finding = project_checks.check_python((3, 10, 2))
    assert (finding.verdict, finding.text.partition(":")[0]) == (Verdict.WRONG, "3.10.2 is too old")


def test_listen_url_without_a_database_url_is_a_warning() -> None:
    (finding,) = project_checks.check_variables({"DETENT_LISTEN_URL": "host=here"})
    assert finding.verdict is Verdict.WARNING
    assert not list(
        project_checks.check_variables({"DETENT_LISTEN_URL": "host=here", "DETENT_DATABASE_URL": "host=here"})
    )


# ---- the database ----


@pytest.mark.usefixtures("shop")
def test_database_out_of_reach_is_wrong(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_DATABASE_URL", f"host={tmp_path} dbname=nobody")
    (finding,) = said(doctor.finds(code=1), "database")
    assert finding.startswith("wrong: cannot reach PostgreSQL at ")
    assert "check DETENT_DATABASE_URL" in finding


@pytest.mark.usefixtures("shop")
def test_missing_migrations_are_wrong(doctor: Doctor, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_DATABASE_URL", empty_dsn)
    (finding,) = said(doctor.finds(code=1), "schema")
    assert "migrations are missing (0001_tables, " in finding
    assert finding.endswith("run `detent migrate`")


@pytest.mark.usefixtures("shop")
def test_schema_of_a_newer_detent_is_wrong(doctor: Doctor, fresh_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(direct(fresh_dsn)) as newer:
        newer.execute("insert into detent.schema_migrations (version, name, checksum) values (9999, 'later', '')")
    monkeypatch.setenv("DETENT_DATABASE_URL", fresh_dsn)
    (finding,) = said(doctor.finds(code=1), "schema")
    assert finding.endswith("upgrade the detent package")


def test_set_up_without_a_database_is_told_of_both_ways_to_one(detent: Detent) -> None:
    (finding,) = said(Doctor(detent).finds(code=1), "database")
    assert "make one with `detent init`, or set it" in finding


SOUND = Reach(
    server_version="18.4",
    user="ada",
    is_read_only=False,
    may_create=True,
    barred_tables=(),
    owners=(),
    clock_ahead=0.01,
    clock_doubt=0.001,
    is_pooled=False,
    hearing=Hearing.HEARD,
)


@pytest.mark.parametrize(
    ("reach", "check", "verdict", "text"),
    [
        (replace(SOUND, is_read_only=True), "rights", Verdict.WRONG, "must name the primary"),
        (replace(SOUND, may_create=False), "rights", Verdict.WRONG, "grant create on the database"),
        (replace(SOUND, barred_tables=("runs",)), "rights", Verdict.WRONG, "may not read and write runs"),
        (replace(SOUND, owners=("bob",)), "rights", Verdict.WARNING, "grant bob to it"),
        (replace(SOUND, clock_ahead=-7.0), "clock", Verdict.WARNING, "clock is 7.0 s behind this machine's"),
        (replace(SOUND, clock_ahead=7.0), "clock", Verdict.WARNING, "clock is 7.0 s ahead of this machine's"),
        (replace(SOUND, clock_ahead=7.0, clock_doubt=6.5), "clock", Verdict.OK, "7.000 s"),
        (replace(SOUND, is_pooled=True, hearing=Hearing.DEAF), "wake-ups", Verdict.WARNING, "name a direct connection"),
    ],
)
def test_what_a_database_does_not_allow_is_judged(reach: Reach, check: str, verdict: Verdict, text: str) -> None:
    findings = {finding.check: finding for finding in database_checks.judge(reach, "here", listens_apart=False)}
    assert findings[check].verdict is verdict
    assert text in findings[check].text


@pytest.mark.parametrize(
    ("hearing", "text"),
    [(Hearing.DEAF, "to the same database"), (Hearing.UNREACHABLE, "cannot connect to DETENT_LISTEN_URL")],
)
def test_listen_url_that_leads_elsewhere_is_wrong(hearing: Hearing, text: str) -> None:
    *_, finding = database_checks.judge(replace(SOUND, hearing=hearing), "here", listens_apart=True)
    assert finding.verdict is Verdict.WRONG
    assert text in finding.text


# ---- what goes on ----

LIVE = WorkerHealth(name="host:1", version="1", runners=2, silence=1.0, is_live=True)
WELL = HealthRecord(
    workers=(LIVE,),
    forsaken_tasks=(),
    paused=(),
    undeclared=(),
    late_runs=(),
    late_count=0,
    miscounted=0,
    shelves_behind=(),
    overdue=(),
    retention=RetentionRecord(rules=(), partitions=()),
)
NOW = datetime.now(UTC)
LATE = LateRun(
    run_id=ids.new_run_id(),
    task_id="send",
    queued_at=NOW - timedelta(hours=1),
    reason=WaitingReason(code="QUEUED", text="because"),
)


def judged(health: HealthRecord) -> list[Finding]:
    return [finding for finding in health_checks.judge(health, "prod") if finding.verdict is not Verdict.OK]


def test_where_all_is_well_nothing_is_found() -> None:
    assert judged(WELL) == []


@pytest.mark.parametrize(
    ("health", "verdict", "text"),
    [
        (replace(WELL, workers=()), Verdict.WARNING, 'no worker lives in environment "prod": start'),
        (
            replace(WELL, workers=(replace(LIVE, is_live=False, silence=90.0),)),
            Verdict.WARNING,
            "host:1 was last heard of 1 m 30 s ago",
        ),
        (
            replace(WELL, forsaken_tasks=(ForsakenTask(task_id="send", runs=3),)),
            Verdict.WRONG,
            '3 runs of task "send" are not over, and no live worker has it',
        ),
        (
            replace(WELL, paused=(PausedLimit(kind=LimitKind.QUEUE, name="emails", paused_at=NOW),)),
            Verdict.WARNING,
            "`detent queues resume emails` goes on with it",
        ),
        (
            replace(WELL, paused=(PausedLimit(kind=LimitKind.ENVIRONMENT, name="", paused_at=NOW),)),
            Verdict.WARNING,
            "`detent limits environment --resume` goes on with it",
        ),
        (
            replace(WELL, undeclared=(UndeclaredLimit(kind=LimitKind.LIMIT, name="openai", runs=3),)),
            Verdict.WRONG,
            'declare it with concurrency_limit("openai")',
        ),
        (replace(WELL, late_runs=(LATE,), late_count=1), Verdict.WARNING, " m ago: because"),
        (replace(WELL, miscounted=2), Verdict.WRONG, "the slots of 2 limits are counted wrongly"),
        (replace(WELL, shelves_behind=("history_30",)), Verdict.WARNING, "history_30 have no partition for today"),
        (replace(WELL, overdue=("history_30_20261001",)), Verdict.WARNING, "1 partitions should be gone"),
    ],
)
def test_what_goes_on_is_judged(health: HealthRecord, verdict: Verdict, text: str) -> None:
    (finding,) = judged(health)
    assert finding.verdict is verdict
    assert text in finding.text


def test_worker_is_missed_more_where_runs_wait_for_it() -> None:
    workers, task = judged(replace(WELL, workers=(), forsaken_tasks=(ForsakenTask(task_id="send", runs=3),)))
    assert (workers.verdict, task.verdict) == (Verdict.WRONG, Verdict.WRONG)


def test_late_runs_beyond_those_that_are_shown_are_counted() -> None:
    *_, last = judged(replace(WELL, late_runs=(LATE,), late_count=1200))
    assert last.text.startswith("1,200 runs in all")
