"""How many runs of each kind fit into a runner, and how many are in it."""

from __future__ import annotations

from collections.abc import Mapping

from detent.protocol.execution import Isolation


class Room:
    """Counts executing runs. A run that waits takes none."""

    def __init__(self, slots: Mapping[Isolation, int]) -> None:
        self._slots = dict(slots)
        self._taken = dict.fromkeys(slots, 0)

    @property
    def executing(self) -> int:
        return sum(self._taken.values())

    @property
    def has_any(self) -> bool:
        return any(self._taken[kind] < slots for kind, slots in self._slots.items())

    def take(self, kind: Isolation) -> None:
        self._taken[kind] += 1

    def give(self, kind: Isolation) -> None:
        self._taken[kind] -= 1

    def ask(self) -> dict[Isolation, int]:
        """Return what one lease call should ask for.

        Half of the slots at most: so the next runs are on their way while these execute.
        """
        free = {kind: slots - self._taken[kind] for kind, slots in self._slots.items()}
        return {kind: min(room, _half(self._slots[kind])) for kind, room in free.items() if room > 0}

    def is_worth_asking(self, kind: Isolation) -> bool:
        """Whether so much has become free that a call for it pays."""
        return (self._slots[kind] - self._taken[kind]) * 4 >= self._slots[kind]


def _half(slots: int) -> int:
    return (slots + 1) // 2
