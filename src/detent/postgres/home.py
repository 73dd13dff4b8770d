"""Where a project's server lives.

`.detent/postgres` is its home, or a link to it: a server that root runs under another account cannot enter a private
project (`/root/shop`), so its home is then a folder of that account under `/var/lib/detent`. Removing `.detent/` leaves
such a home behind.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from detent.errors import EmbeddedServerError
from detent.postgres import account, flock
from detent.postgres.account import Account

SYSTEM_FOLDER = Path("/var/lib/detent")
SETTLE_TIMEOUT = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The places of one server; `path` is private to `account`."""

    path: Path
    log: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def gate_lock(self) -> Path:
        """Held alone while the server is started or stopped."""
        return self.path / "gate.lock"

    @property
    def users_lock(self) -> Path:
        """Held together by all processes that use the server."""
        return self.path / "users.lock"

    @property
    def server_lock(self) -> Path:
        """Held alone by the server itself."""
        return self.path / "server.lock"

    @property
    def digest(self) -> str:
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]


def find(folder: Path) -> Home | None:
    """The home that the `.detent` folder holds or points to, if there is one this process may use."""
    pointer = folder / "postgres"
    if not pointer.exists():
        return None
    owner = _owner(pointer)
    return Home(path=pointer.resolve(), log=folder.resolve() / "postgres.log", account=owner) if owner else None


def settle(folder: Path) -> Home:
    """Find the home of `folder`, or make one."""
    if not folder.exists():
        _make_folder(folder)
    if not (folder / "postgres").exists():
        _make(folder.resolve())
    if (home := find(folder)) is None:
        raise EmbeddedServerError(str(folder), "its data belongs to another user", "run as that user, or as root")
    return home


def _owner(pointer: Path) -> Account | None:
    if pointer.stat().st_uid == os.geteuid() != account.ROOT:
        return account.current()
    return account.of_owner(pointer) if os.geteuid() == account.ROOT else None


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == account.ROOT and (user := account.of_owner(folder.parent)):
        user.take(folder)


def _make(folder: Path) -> None:
    owner = account.for_new_data(folder.parent)
    if owner is None:
        names = " or ".join(account.SERVICE_ACCOUNTS)
        raise EmbeddedServerError(str(folder), f"root cannot run it and there is no account {names}", "add one of them")
    with flock.exclusive(folder / "postgres.lock", owner, SETTLE_TIMEOUT):
        pointer = folder / "postgres"
        if pointer.exists():
            return
        if owner.may_enter(folder):
            _make_private(pointer, owner)
        else:
            _make_elsewhere(pointer, owner)


def _make_private(path: Path, owner: Account) -> None:
    new = Path(tempfile.mkdtemp(prefix="postgres.", dir=path.parent))
    owner.take(new)
    new.rename(path)


def _make_elsewhere(pointer: Path, owner: Account) -> None:
    SYSTEM_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=f"{pointer.parent.parent.name}-", dir=SYSTEM_FOLDER))
    owner.take(home)
    # The pointer is a dead link when the home was removed, or stayed behind on another machine.
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(home)
