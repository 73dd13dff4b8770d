"""The private folder of a server's socket: its path must be short, so it cannot always lie in the project."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

from detent.errors import EmbeddedServerError
from detent.postgres.home import Home

SOCKET_NAME = ".s.PGSQL.5432"
# macOS takes 104 bytes with the closing NUL, Linux 108.
MAX_PATH_BYTES = 103


def prepare(home: Home) -> Path:
    """Make an empty folder that only the server's account may enter; the same for a home whenever it can be."""
    for folder in _candidates(home):
        if len(bytes(folder / SOCKET_NAME)) <= MAX_PATH_BYTES and _make(folder, home):
            _clear(folder)
            return folder
    raise EmbeddedServerError(
        str(home.path), "no folder for its socket can be made in the temporary directory", "set TMPDIR to one of yours"
    )


def remove(home: Home) -> None:
    """Clear away what a server left that no longer runs."""
    for folder in _candidates(home):
        if folder.is_dir() and _is_private(folder, home):
            _clear(folder)
            folder.rmdir()


def _candidates(home: Home) -> list[Path]:
    """The fixed place first: it is the same for processes that differ in TMPDIR."""
    name = f"detent-{home.account.uid}-{home.digest}"
    return [Path("/tmp") / name, Path(tempfile.gettempdir()) / name, home.path / "socket"]


def _make(folder: Path, home: Home) -> bool:
    try:
        folder.mkdir(mode=0o700)
        home.account.take(folder)
    except FileExistsError:
        pass
    except OSError:
        return False
    return _is_private(folder, home)


def _is_private(folder: Path, home: Home) -> bool:
    """In a place that everybody may write to, somebody else may have put the name there first."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == home.account.uid and not status.st_mode & 0o077


def _clear(folder: Path) -> None:
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (folder / name).unlink(missing_ok=True)
