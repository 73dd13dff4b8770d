"""Where in the user's code something was defined."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A function's file, line and name, or a call's; `load` is the loading of its module that made it."""

    file: str
    line: int
    qualname: str
    load: object = field(repr=False, compare=False, default=None)

    @property
    def place(self) -> str:
        """`file:line`, relative to the working directory where it lies below it."""
        return f"{relative(self.file)}:{self.line}"

    def replaces(self, older: Source) -> bool:
        """Return whether this is *older* defined anew: its module loaded again, or the same line run again."""
        is_same = (self.file, self.qualname) == (older.file, older.qualname)
        return is_same and (self.line == older.line or self.load is not older.load)


def of_function(fn: Callable[..., object]) -> Source:
    code = getattr(fn, "__code__", None)
    names = getattr(fn, "__globals__", {})
    return Source(
        file=os.path.abspath(code.co_filename) if code else "<unknown>",
        line=code.co_firstlineno if code else 0,
        qualname=getattr(fn, "__qualname__", repr(fn)),
        # A module loaded again has a new spec in an old namespace (reload), or a new namespace (imported anew).
        load=names.get("__spec__") or names,
    )


def of_caller() -> Source:
    """Return the line outside this package that made the present call."""
    frame = caller()
    names = frame.f_globals
    return Source(
        file=os.path.abspath(frame.f_code.co_filename),
        line=frame.f_lineno,
        qualname=frame.f_code.co_qualname,
        load=names.get("__spec__") or names,
    )


def relative(path: str) -> str:
    inside = os.path.relpath(path)
    return path if inside.startswith("..") else inside


def caller() -> FrameType:
    """Return the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("detent.sdk"):
        frame = frame.f_back
    return frame
