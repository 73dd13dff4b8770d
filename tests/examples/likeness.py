"""Whether what was printed is what the documentation shows: alike but for numbers, times and ids.

`…` stands for anything, on a line of its own for any lines. An id that is shown stands for the one that came in its place,
from then on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ANYTHING = "…"
_ID = re.compile(r"\b(?:run|batch|bulk)_[0-9a-z]{26}\b")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*(?: (?:ms|s|min|h|d)\b)?")


class Ids:
    """The ids that were shown, and those that really came."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def put_into(self, text: str) -> str:
        """Return *text* with the real ids instead of those that were shown."""
        return _ID.sub(lambda found: self._real.get(found[0], found[0]), text)

    def learn(self, shown: str, printed: str) -> None:
        for known, real in zip(_ID.findall(shown), _ID.findall(printed), strict=False):
            self._real.setdefault(known, real)


def difference(shown: Sequence[str], printed: Sequence[str], ids: Ids) -> str:
    """Return what differs, empty for nothing; learn the ids."""
    rest = list(printed)
    may_skip = False
    for line in shown:
        if line.strip() == ANYTHING:
            may_skip = True
            continue
        while rest and may_skip and not _is_alike(line, rest[0]):
            rest.pop(0)
        if not rest or not _is_alike(line, rest[0]):
            return f"shown: {line!r}\nbut printed:\n" + "\n".join(printed)
        ids.learn(line, rest.pop(0))
        may_skip = False
    return "" if may_skip or not any(rest) else "printed, but not shown:\n" + "\n".join(rest)


def _is_alike(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(_plain(part)) for part in shown.split(ANYTHING))
    return re.fullmatch(pattern, _plain(printed)) is not None


def _plain(line: str) -> str:
    return " ".join(_NUMBER.sub("0", _ID.sub("ID", line)).split())
