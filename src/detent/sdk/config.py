"""`detent_config.py`: what holds for all tasks of a project."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, TypedDict, Unpack

from detent.duration import Duration, seconds
from detent.errors import ConfigError
from detent.protocol.machines import Machine
from detent.protocol.retention import Retention
from detent.protocol.retry import Retry
from detent.sdk import source, spelling
from detent.sdk.machines import check_name
from detent.sdk.telemetry import Telemetry

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "detent_config.py"
TEST_FILES = ("test_*.py", "*_test.py", "conftest.py")
KEPT_ALIVE = 50
"""Runs that a process executes with `process_keep_alive=True`."""
LOG_LEVELS = ("none", "error", "warn", "info", "debug")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Retries of tasks that say nothing themselves. `enabled_in_dev=False` turns all retries off in development."""

    enabled_in_dev: bool = True
    default: Retry = field(default_factory=Retry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What becomes of what runs print.

    Example::

        config = define_config(console=Console(echo=False))
    """

    echo: bool | None = None
    """It goes to the worker's own output as well. None: in `detent dev` alone, without `--json`."""
    capture: bool = True
    """It is kept with the run. False: it goes to the worker's own output alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A project's settings, checked."""

    project: str
    root: Path
    """The folder of the config file."""
    dirs: tuple[str, ...] = ()
    """Folders of task files, relative to `root`; empty finds those named `tasks` or `trigger`."""
    retries: Retries = Retries()
    max_duration: float | None = None
    """Seconds that one attempt of a task that has no limit of its own may take."""
    ttl: float | None = None
    """Seconds that runs of tasks without a ttl may stay in the queue; 0 is for ever, None was not said."""
    log_level: str = "info"
    retention: Retention = field(default_factory=Retention)
    machine: str | None = None
    """Of tasks that name none themselves; None: no limit."""
    machines: Mapping[str, Machine] = field(default_factory=dict)
    """The project's own, which may bear the name of a preset."""
    ignore_patterns: tuple[str, ...] = TEST_FILES
    """Which files in the folders of tasks are none, relative to `root`."""
    console: Console = Console()
    process_keep_alive: int = 1
    """How many runs of tasks with `isolation="process"` one process executes, one after the other."""
    extra_ca_certs: str | None = None
    """The whole path of a PEM file of authorities that runs trust besides the usual ones."""
    telemetry: Telemetry = field(default_factory=Telemetry)
    """Where the spans, metrics and log lines of runs go besides."""


class ConfigKeys(TypedDict, total=False):
    """Keys of `define_config`, all optional.

    - `project`: the project's name; default the folder's.
    - `dirs`: folders of task files, relative to the config file. Default: folders named `tasks` or `trigger`.
    - `retries`: `Retries(enabled_in_dev=True, default=Retry())`.
    - `max_duration`: wall time that one attempt may take, its waits not counted. Default: no limit.
    - `ttl`: how long a run may stay in the queue without ever having started; then it is `EXPIRED`. 0 is for ever. Default: for
      ever, and 10 minutes in `detent dev`.
    - `retention`: how long runs are kept after their end: `Retention(default="30d", statuses=..., tasks=...)`, or None for ever.
    - `machine`: what runs of tasks that name no machine may take, where these have `isolation="process"`. Default: no limit.
    - `machines`: the project's own by their names, such as `{"gpu-box": Machine(cpu=8, memory_gb=32)}`. One with the name of a
      preset replaces it.
    - `log_level`: what `logger` keeps: `"none"`, `"error"`, `"warn"`, `"info"` (default) or `"debug"`; DETENT_LOG_LEVEL goes
      first. What runs print, and write by the standard library's `logging` from INFO on, is kept anyway; with `"debug"` all.
    - `ignore_patterns`: which files in `dirs` are no files of tasks, such as `"legacy_*.py"` or `"tasks/old/**"`. Default:
      `test_*.py`, `*_test.py` and `conftest.py`; given ones take their place.
    - `console`: `Console(echo=None, capture=True)`: what becomes of what runs print.
    - `process_keep_alive`: how many runs of tasks with `isolation="process"` one process executes before another takes its place;
      True is 50. Default: one.
    - `extra_ca_certs`: a PEM file, relative to the config file, of authorities that runs trust besides the usual ones.
    - `telemetry`: `Telemetry(exporters=[...], log_exporters=[...], metric_exporters=[...], instrumentations=[...])`: where spans,
      log lines and metrics of runs go, with OpenTelemetry. Default: nowhere.
    """

    project: str
    dirs: str | Iterable[str]
    retries: Retries
    max_duration: Duration
    ttl: Duration
    log_level: str
    retention: Retention | None
    machine: str
    machines: Mapping[str, Machine]
    ignore_patterns: str | Iterable[str]
    console: Console
    process_keep_alive: int | bool
    extra_ca_certs: str
    telemetry: Telemetry


KNOWN = frozenset(ConfigKeys.__annotations__)
_LATER = frozenset({"build", "deploy"})
_HOOKS = frozenset({
    "on_start", "on_start_attempt", "on_success", "on_failure", "on_complete", "on_cancel", "on_wait", "on_resume", "catch_error",
})  # fmt: skip
_ELSEWHERE = {
    "enable_console_logging": "what runs print is shown by console=Console(echo=True)",
    "disable_console_interceptor": "what runs print is not kept with console=Console(capture=False)",
    "extra_cacerts": "write extra_ca_certs",
    "ignore": "write ignore_patterns",
    "enabled_in_dev": "write retries=Retries(enabled_in_dev=...)",
    "runtime": "the runtime is the Python that starts the worker",
    "legacy_dev_process_cwd_behaviour": "runs always start in the project's folder",
    "tsconfig": "there is no TypeScript here",
    "tsconfig_path": "there is no TypeScript here",
    "compatibility_flags": "there is none to set",
    "trigger_directories": "write dirs",
    "instrumentations": "write telemetry=Telemetry(instrumentations=[...])",
    "init": "write a file init.py into the folder of tasks, or a middleware: @tasks.middleware",
    "cleanup": "write a middleware: @tasks.middleware",
    "middleware": "write it in a file of tasks: @tasks.middleware",
    "additional_packages": "nothing is bundled: install them where the worker runs",
    "additional_files": "nothing is bundled: the worker finds the files that lie where it runs",
    "dependencies_to_bundle": "nothing is bundled: install them where the worker runs",
    "post_install": "nothing is bundled: do it where the worker is installed",
}
"""Keys that others have, in snake_case: what to do instead."""


def define_config(**keys: Unpack[ConfigKeys]) -> Config:
    """Return a project's config. Raises `ConfigError` for an unknown key or a bad value, naming the file and the key.

    Example::

        config = define_config(project="proj_shop", dirs=["tasks"], max_duration="1h")
    """
    from pathlib import Path

    frame = source.caller()
    file = Path(frame.f_code.co_filename)
    place = f"{source.relative(str(file))}:{frame.f_lineno}"
    return _read(keys, place, file.absolute().parent)


def default_config(root: Path) -> Config:
    """Return the config of a project that has no config file."""
    return Config(project=root.resolve().name, root=root.resolve(), log_level=_log_level("info", "DETENT_LOG_LEVEL"))


def _read(keys: Mapping[str, object], place: str, root: Path) -> Config:
    for name in keys.keys() - KNOWN:
        _refuse(place, _why_unknown(name))
    own = _machines(keys.get("machines", {}), place)
    return Config(
        project=_project(keys.get("project", root.name), place),
        dirs=_dirs(keys.get("dirs", ()), place, root),
        retries=_retries(keys.get("retries", Retries()), place),
        max_duration=_max_duration(keys.get("max_duration"), place),
        ttl=_duration("ttl", keys.get("ttl"), place),
        log_level=_log_level(keys.get("log_level", "info"), place),
        retention=_retention(keys.get("retention", Retention()), place),
        machine=_machine(keys.get("machine"), own, place),
        machines=own,
        ignore_patterns=_patterns(keys.get("ignore_patterns", TEST_FILES), place),
        console=_console(keys.get("console", Console()), place),
        process_keep_alive=_process_keep_alive(keys.get("process_keep_alive", 1), place),
        extra_ca_certs=_extra_ca_certs(keys.get("extra_ca_certs"), place, root),
        telemetry=_telemetry(keys, place),
        root=root,
    )


def _why_unknown(name: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().removeprefix("experimental_")
    if snake in _LATER:
        return f"the key {name} is not available yet in this version of detent; leave it out"
    if snake in _HOOKS:
        return f"the key {name} is none here: write the hook in a file of tasks, such as init.py: @tasks.{_hook(snake)}"
    if snake in _ELSEWHERE:
        return f"the key {name} is none here: {_ELSEWHERE[snake]}"
    return f"unknown key {name!r}{spelling.hint(snake, KNOWN)}"


def _hook(name: str) -> str:
    return "on_start_attempt" if name == "on_start" else name


def _project(project: object, place: str) -> str:
    if not isinstance(project, str) or not project.strip():
        _refuse(place, f"project={project!r} must be the project's name")
    return project


def _dirs(dirs: object, place: str, root: Path) -> tuple[str, ...]:
    listed = [dirs] if isinstance(dirs, str) else dirs
    if not isinstance(listed, Iterable):
        _refuse(place, f"dirs={dirs!r} must be a list of folders")
    folders = tuple(str(folder) for folder in listed)
    for folder in folders:
        if not (root / folder).is_dir():
            _refuse(place, f"dirs names {folder!r}, which is no folder of {root}")
    return folders


def _retries(retries: object, place: str) -> Retries:
    if not isinstance(retries, Retries):
        _refuse(place, f"retries={retries!r} must be Retries(enabled_in_dev=..., default=Retry(...))")
    return retries


def _duration(name: str, duration: object, place: str) -> float | None:
    if duration is None:
        return None
    try:
        return seconds(duration)  # type: ignore[arg-type]  # what is no duration is refused by it
    except ValueError as error:
        _refuse(place, f"{name}: {error}")


def _max_duration(duration: object, place: str) -> float | None:
    allowed = _duration("max_duration", duration, place)
    return _refuse(place, "max_duration must be longer than 0 s") if allowed == 0 else allowed


def _retention(retention: object, place: str) -> Retention:
    if retention is None:
        return Retention(default=None)
    if not isinstance(retention, Retention):
        _refuse(place, f'retention={retention!r} must be Retention(default="30d", ...), or None for ever')
    return retention


def _machines(own: object, place: str) -> Mapping[str, Machine]:
    if not isinstance(own, Mapping) or not all(isinstance(machine, Machine) for machine in own.values()):
        _refuse(place, f'machines={own!r} must be machines by their names, as in {{"gpu-box": Machine(cpu=8, memory_gb=32)}}')
    return {_machine(name, own, place) or "": machine for name, machine in own.items()}


def _machine(name: object, own: Mapping[str, Machine], place: str) -> str | None:
    try:
        return None if name is None else check_name(name, own)
    except (TypeError, ValueError) as error:
        _refuse(place, f"machine: {error}")


def _patterns(patterns: object, place: str) -> tuple[str, ...]:
    listed = (patterns,) if isinstance(patterns, str) else tuple(patterns) if isinstance(patterns, Iterable) else (None,)
    if not all(isinstance(pattern, str) and pattern for pattern in listed):
        _refuse(place, f'ignore_patterns={patterns!r} must be a list of patterns, such as ["legacy_*.py", "tasks/old/**"]')
    return tuple(map(str, listed))


def _console(console: object, place: str) -> Console:
    if not isinstance(console, Console):
        _refuse(place, f"console={console!r} must be Console(echo=..., capture=...)")
    return console


def _process_keep_alive(runs: object, place: str) -> int:
    if isinstance(runs, bool):
        return KEPT_ALIVE if runs else 1
    if not isinstance(runs, int) or runs < 1:
        _refuse(place, f"process_keep_alive={runs!r} must be the runs of one process: 1 or more, or True for {KEPT_ALIVE}")
    return runs


def _extra_ca_certs(file: object, place: str, root: Path) -> str | None:
    if file is None:
        return None
    if not isinstance(file, str) or not (root / file).is_file():
        _refuse(place, f"extra_ca_certs={file!r} must be a PEM file, and {root} has no such file")
    if "-----BEGIN CERTIFICATE-----" not in (root / file).read_text(encoding="utf-8", errors="replace"):
        _refuse(place, f"extra_ca_certs={file!r} is no PEM file: it holds no BEGIN CERTIFICATE")
    return str((root / file).resolve())


def _telemetry(keys: Mapping[str, object], place: str) -> Telemetry:
    if "telemetry" not in keys:
        return Telemetry()
    telemetry = keys["telemetry"]
    if not isinstance(telemetry, Telemetry):
        _refuse(place, f"telemetry={telemetry!r} must be Telemetry(exporters=[...], ...)")
    try:
        telemetry.check()
    except ValueError as error:
        _refuse(place, f"telemetry: {error}")
    return telemetry


def _log_level(level: object, place: str) -> str:
    chosen = os.environ.get("DETENT_LOG_LEVEL") or level
    if chosen not in LOG_LEVELS:
        _refuse(place, f"log_level={chosen!r} is none{spelling.hint(str(chosen), LOG_LEVELS)}")
    return str(chosen)


def _refuse(place: str, why: str) -> NoReturn:
    raise ConfigError(f"{place}: {why}")
