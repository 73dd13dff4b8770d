"""The nearest known name to a misspelt one, for error messages."""

from __future__ import annotations

from collections.abc import Iterable


def hint(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?`, or the list of known names when none is near.

    >>> hint("max_atempts", ["delay", "max_attempts"])
    '; did you mean "max_attempts"?'
    """
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(names)}"
