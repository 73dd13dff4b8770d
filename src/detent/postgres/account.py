"""The account that runs the server: the user's own, or, as root, one without privileges (PostgreSQL refuses root)."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import pwd

ROOT = 0
SERVICE_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    uid: int
    gid: int

    @property
    def is_current(self) -> bool:
        return self.uid == os.geteuid()

    # What subprocess wants as user, group and extra_groups: nothing, unless the child must become the account.

    @property
    def switch_uid(self) -> int | None:
        return None if self.is_current else self.uid

    @property
    def switch_gid(self) -> int | None:
        return None if self.is_current else self.gid

    @property
    def switch_groups(self) -> list[int] | None:
        return None if self.is_current else []

    def take(self, path: Path | int) -> None:
        """Give `path`, which this process has just made, to the account."""
        if not self.is_current:
            os.chown(path, self.uid, self.gid)

    def may_enter(self, folder: Path) -> bool:
        """Whether every folder down to `folder` lets the account pass (access lists are not consulted)."""
        return all(self.may_execute(step) for step in [folder, *folder.parents])

    def may_execute(self, path: Path) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def current() -> Account:
    return Account(uid=os.geteuid(), gid=os.getegid())


def for_new_data(project: Path) -> Account | None:
    """The account for a server that has no data yet; None when root finds no account to use.

    Root uses the owner of the project if that is an ordinary user, so that both can run it, else a service account.
    """
    if os.geteuid() != ROOT:
        return current()
    return of_owner(project) or _service()


def of_owner(path: Path) -> Account | None:
    """The account that owns `path`; None for root, and for an owner that this machine does not know."""
    uid = path.stat().st_uid
    try:
        # initdb looks its user up, so a bare number from another machine (a bind mount) is of no use.
        return Account(uid=uid, gid=pwd.getpwuid(uid).pw_gid) if uid != ROOT else None
    except KeyError:
        return None


def _service() -> Account | None:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next((known[name] for name in SERVICE_ACCOUNTS if name in known), None)
    return Account(uid=entry.pw_uid, gid=entry.pw_gid) if entry else None
