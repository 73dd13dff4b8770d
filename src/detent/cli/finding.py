"""What `detent doctor` finds: one line for each thing that it has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and something is not as it should be, or will not be."""
    WRONG = "wrong"
    """Something does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    check: str
    verdict: Verdict
    text: str
    """What was found; if it is not right, also what to do."""


def ok(check: str, text: str) -> Finding:
    return Finding(check=check, verdict=Verdict.OK, text=text)


def warning(check: str, text: str) -> Finding:
    return Finding(check=check, verdict=Verdict.WARNING, text=text)


def wrong(check: str, text: str) -> Finding:
    return Finding(check=check, verdict=Verdict.WRONG, text=text)
