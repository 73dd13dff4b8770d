"""Machines: how much CPU and memory a run in a process of its own may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

from detent.errors import DefinitionError

BYTES_PER_GB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run may take: `cpu` in cores, `memory_gb` in units of 1024³ bytes.

    Raises `DefinitionError` for what is no number over 0.

    >>> Machine(cpu=8, memory_gb=32).memory
    34359738368
    """

    cpu: float
    memory_gb: float

    def __post_init__(self) -> None:
        for name, value in (("cpu", self.cpu), ("memory_gb", self.memory_gb)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise DefinitionError(f"Machine({name}={value!r}): it must be a number over 0")

    @property
    def memory(self) -> int:
        """Bytes."""
        return int(self.memory_gb * BYTES_PER_GB)


PRESETS = MappingProxyType({
    "micro": Machine(cpu=0.25, memory_gb=0.25),
    "small-1x": Machine(cpu=0.5, memory_gb=0.5),
    "small-2x": Machine(cpu=1, memory_gb=1),
    "medium-1x": Machine(cpu=1, memory_gb=2),
    "medium-2x": Machine(cpu=2, memory_gb=4),
    "large-1x": Machine(cpu=4, memory_gb=8),
    "large-2x": Machine(cpu=8, memory_gb=16),
})  # fmt: skip
"""Machines that every project knows; its config may replace them and add others."""
