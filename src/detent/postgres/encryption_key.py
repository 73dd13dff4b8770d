"""The key of environment variables on an embedded database: made once, and kept beside it, for its owner alone."""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from pathlib import Path

FILE_NAME = "encryption.key"
_BYTES = 32


def read_or_make(folder: Path) -> str:
    """Return the key that lies in a folder, made now if there is none."""
    file = folder / FILE_NAME
    if not file.exists():
        _make(file)
    return file.read_text(encoding="ascii").strip()


def _make(file: Path) -> None:
    """Whoever makes it at the same time: the first one's stays, and nobody sees a part of one."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=FILE_NAME, encoding="ascii") as made:
        made.write(f"{base64.b64encode(os.urandom(_BYTES)).decode()}\n")
        made.flush()
        with contextlib.suppress(FileExistsError):
            os.link(made.name, file)
