"""Values that no JSON can hold, or that no database should."""

from __future__ import annotations

import math
from collections.abc import Callable


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def itself() -> object:
    loop: list[object] = []
    loop.append(loop)
    return loop


BAD_JSON: dict[str, Callable[[], object]] = {
    "object": object,
    "bytes that are no text": lambda: b"\xff",
    "function": lambda: nested,
    "coroutine-like": lambda: iter([object()]),
    "nan": lambda: {"x": math.nan},
    "infinity": lambda: [-math.inf],
    "lone surrogate": lambda: "a\ud800b",
    "lone surrogate in a key": lambda: {"\udfff": 1},
    "10,000 levels": lambda: nested(10_000),
    "itself": itself,
    "20 MB": lambda: "x" * (20 * 1024 * 1024),
    "20 MB of more than ASCII": lambda: "é" * (10 * 1024 * 1024),
}
