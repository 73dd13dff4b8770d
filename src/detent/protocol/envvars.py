"""Environment variables of an environment, as they cross between callers or workers and a backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

LARGEST_VALUE = 65_536
"""Bytes. Linux takes 128 kB a variable when a process is started with it."""
RESERVED = "DETENT_"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


class PutMode(StrEnum):
    """What becomes of variables that are there already, and of those that are not."""

    SET = "set"
    """All get the value."""
    KEEP = "keep"
    """Those that are there stay as they are."""
    UPDATE = "update"
    """Only those that are there get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvVarValue:
    """A variable to write."""

    name: str
    value: str = field(repr=False)
    is_secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvVar:
    """A variable as it is read."""

    name: str
    value: str | None = field(repr=False)
    """None: it is secret, and given to runs alone."""
    is_secret: bool
    is_inherited: bool
    """A preview branch has it from the environment that it is a branch of."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """What the runs of an environment are given."""

    fingerprint: str
    """Another one when any of them is another."""
    values: Mapping[str, str] = field(repr=False)
    obstacle: str = ""
    """Why some are missing: a key that cannot open them."""


def check_name(name: str) -> str:
    """Return the name of a variable. Raises `ValueError` when there can be none of it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a variable: use letters, digits and _, no digit first, such as API_KEY")
    if name.upper().startswith(RESERVED):
        raise ValueError(f"{name} cannot be set: names with {RESERVED} are detent's own; set it where the worker is started")
    return name


def check_value(name: str, value: str) -> str:
    """Return the value of a variable; the error of one that cannot be kept does not show it. Raises `ValueError`."""
    if not isinstance(value, str):
        raise ValueError(f"the value of {name} must be text, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"the value of {name} holds a NUL, which no environment variable can")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the value of {name} holds half of a surrogate pair, which UTF-8 cannot") from None
    if size > LARGEST_VALUE:
        raise ValueError(f"the value of {name} is {size:,} bytes, over the limit of {LARGEST_VALUE:,}; keep it elsewhere")
    return value
