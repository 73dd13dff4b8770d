"""File locks that the kernel frees when their holder dies, however it dies.

A lock belongs to the open file: a child that inherits the descriptor holds it too, until the last copy is closed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detent.postgres.account import Account

if sys.platform != "win32":
    import fcntl

POLL_SECONDS = 0.005


def try_exclusive(path: Path, account: Account) -> int | None:
    """Lock `path` against everybody; the descriptor that holds the lock, or None when somebody holds one."""
    return _try(path, account, fcntl.LOCK_EX)


def try_shared(path: Path, account: Account) -> int | None:
    """Lock `path` beside others; None while somebody holds it alone."""
    return _try(path, account, fcntl.LOCK_SH)


@contextmanager
def exclusive(path: Path, account: Account, timeout: float) -> Iterator[None]:
    """Hold `path` alone; raises TimeoutError when somebody else keeps it for longer than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while (held := try_exclusive(path, account)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"another process has held {path} for {timeout:g} s")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        os.close(held)


def _try(path: Path, account: Account, operation: int) -> int | None:
    descriptor = _open(path, account)
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        return descriptor
    os.close(descriptor)
    return None


def _open(path: Path, account: Account) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    account.take(descriptor)
    return descriptor
