"""Finding and loading a project's config and task files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from detent.errors import ConfigError
from detent.sdk import patterns, source, telemetry
from detent.sdk.config import FILE_NAME, TEST_FILES, Config, default_config
from detent.sdk.machines import machines

CONVENTIONAL = ("tasks", "trigger")
FIRST = "init.py"
"""Loaded before the other files of its folder."""

_SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "tests", "test", "venv"})


def find_config(start: Path) -> Path | None:
    """Return the config file of the project around *start*, in it or above it."""
    folder = start.resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    return None


def load_config(start: Path) -> Config:
    """Return the config of the project around *start*; the defaults when it has no config file. Raises `ConfigError`.

    From here on a task that names a machine which the config does not know is refused.
    """
    file = find_config(start)
    config = default_config(start) if file is None else _config_in(file)
    machines.own = config.machines
    return config


def _config_in(file: Path) -> Config:
    config = getattr(load_file(file, file.parent), "config", None)
    if not isinstance(config, Config):
        raise ConfigError(f"{source.relative(str(file))} must set config = define_config(...); it is {config!r}")
    return config


def discover(where: Config | Path | str) -> list[ModuleType]:
    """Load task files and return their modules: a project's by its config, or those of a folder, or one file.

    Raises `ConfigError` naming the file that does not load, and why.
    """
    root = _root_of(where)
    return [load_file(file, root) for file in task_files(where)]


def _root_of(where: Config | Path | str) -> Path:
    """Return the folder that the names of modules begin in."""
    if isinstance(where, Config):
        return where.root
    path = Path(where).resolve()
    config = find_config(path)
    if config is not None:
        return config.parent
    return path.parent if path.is_file() or path.name in CONVENTIONAL else path


def task_files(where: Config | Path | str) -> list[Path]:
    """Return the files that `discover` loads. Raises `ConfigError` when there are none."""
    found = _files_of_config(where) if isinstance(where, Config) else _files_of_path(Path(where))
    return list(dict.fromkeys(found))


def _files_of_config(config: Config) -> Iterator[Path]:
    folders = [config.root / folder for folder in config.dirs] or list(_conventional(config.root))
    if not folders:
        raise ConfigError(
            f"no tasks found: {config.root} has no folder named tasks or trigger; "
            f'make one, name others in {FILE_NAME} (dirs=["..."]), or give a file: detent dev path/to/file.py'
        )
    for file in (file for folder in folders for file in _files_below(folder)):
        if not _is_ignored(file, config.root, config.ignore_patterns):
            yield file


def _files_of_path(path: Path) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    if not path.is_dir():
        raise ConfigError(f"there is no file or folder {path}")
    folder = path.resolve()
    return [file for file in _files_below(folder) if not _is_ignored(file, folder, TEST_FILES)]


def _conventional(root: Path) -> Iterator[Path]:
    """Yield the outermost folders named for tasks."""
    if root.name in CONVENTIONAL:
        yield root
        return
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir() and _is_wanted(entry)):
        yield from _conventional(folder)


def _files_below(folder: Path) -> Iterator[Path]:
    entries = sorted(folder.iterdir(), key=lambda entry: (entry.name != FIRST, entry.is_dir(), entry.name))
    for entry in entries:
        if entry.is_dir() and _is_wanted(entry):
            yield from _files_below(entry)
        elif entry.suffix == ".py":
            yield entry.resolve()


def _is_wanted(folder: Path) -> bool:
    return folder.name not in _SKIPPED_FOLDERS and not folder.name.startswith(".")


def _is_ignored(file: Path, root: Path, ignored: Iterable[str]) -> bool:
    place = Path(os.path.relpath(file, root))
    return any(patterns.matches(pattern, place) for pattern in ignored)


def load_file(file: Path, root: Path) -> ModuleType:
    """Load a file under the name by which other code of the project in *root* would import it. Raises `ConfigError`."""
    file = file.resolve()
    top, name = _place_of(file, root)
    if str(top) not in sys.path:
        sys.path.insert(0, str(top))
    known = sys.modules.get(name)
    if known is not None and _file_of(known) == file:
        return known
    try:
        return _load_as(name, file) if known is None else _load_apart(file)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's file may raise anything: all of it is one sentence
        _explain(file, error)


def _load_as(name: str, file: Path) -> ModuleType:
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        return _load_apart(file)
    return module if _file_of(module) == file else _load_apart(file)


def _load_apart(file: Path) -> ModuleType:
    """Load a file whose name is taken, or is no name for a module."""
    name = f"detent_file_{file.stem}_{abs(hash(str(file))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place_of(file: Path, root: Path) -> tuple[Path, str]:
    """Return the folder that must be importable, and the module's dotted name below it."""
    top = file.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    if top == file.parent:
        top = _importable_root(file, root)
    parts = file.relative_to(top).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return top, name or file.stem


def _importable_root(file: Path, root: Path) -> Path:
    """Return the innermost folder from which *file* can already be imported, or *root*."""
    known = [Path(entry or ".").resolve() for entry in sys.path]
    inside = [folder for folder in (root.resolve(), *known) if folder in file.parents]
    return max(inside, key=lambda folder: len(folder.parts), default=file.parent)


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _explain(file: Path, error: BaseException) -> NoReturn:
    place = source.relative(str(file))
    line = _line_in(file, error)
    where = f"{place}:{line}" if line else place
    what = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}{_remedy(error)}"
    raise ConfigError(f"cannot load {where}: {what}") from error


def _remedy(error: BaseException) -> str:
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    is_telemetry = name is not None and name.startswith("opentelemetry") and not telemetry.is_installed()
    return f'; install "{telemetry.EXTRA}"' if is_telemetry else ""


def _line_in(file: Path, error: BaseException) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    line, traceback = None, error.__traceback__
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename) == file:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
