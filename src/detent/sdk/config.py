"""`detent_config.py`: what holds for all tasks of a project."""

from __future__ import annotations

import os
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

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "detent_config.py"
LOG_LEVELS = ("none", "error", "warn", "info", "debug")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Retries of tasks that say nothing themselves. `enabled_in_dev=False` turns all retries off in development."""

    enabled_in_dev: bool = True
    default: Retry = field(default_factory=Retry)


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
    - `log_level`: `"none"`, `"error"`, `"warn"`, `"info"` (default) or `"debug"`; DETENT_LOG_LEVEL goes first.
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


KNOWN = frozenset(ConfigKeys.__annotations__)


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
    for name in keys:
        if name not in KNOWN:
            _refuse(place, f"unknown key {name!r}{spelling.hint(name, KNOWN)}")
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
        root=root,
    )


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


def _log_level(level: object, place: str) -> str:
    chosen = os.environ.get("DETENT_LOG_LEVEL") or level
    if chosen not in LOG_LEVELS:
        _refuse(place, f"log_level={chosen!r} is none{spelling.hint(str(chosen), LOG_LEVELS)}")
    return str(chosen)


def _refuse(place: str, why: str) -> NoReturn:
    raise ConfigError(f"{place}: {why}")
