"""Patterns of file names, as `ignore_patterns` takes them."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANINGS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def matches(pattern: str, file: Path) -> bool:
    """Return whether a pattern stands for a file, given relative to the project; one without a slash is for names in any folder.

    `*` and `?` stand for what holds no slash, `**` for any folders.

    >>> [matches(p, Path("tasks/old/mail.py")) for p in ("mail.py", "tasks/**/*.py", "tasks/*.py", "**/old/**")]
    [True, True, False, True]
    """
    return _compiled(pattern if "/" in pattern else f"**/{pattern}").fullmatch(file.as_posix()) is not None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = _PARTS.findall(pattern.removeprefix("./"))
    return re.compile("".join(_MEANINGS.get(part) or re.escape(part) for part in parts))
