"""The variables that the environment gives to runs, in a process that came with variables of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping


class GivenVariables:
    """Puts variables into `os.environ`, and takes out those that are gone. What the process came with stays as it is."""

    def __init__(self, process: MutableMapping[str, str] | None = None) -> None:
        self._process = os.environ if process is None else process
        self._own = frozenset(self._process)
        self._given = frozenset[str]()

    def give(self, values: Mapping[str, str]) -> None:
        """Let these be the variables that are given, and no others."""
        wanted = {name: value for name, value in values.items() if name not in self._own}
        for name in self._given - wanted.keys():
            self._process.pop(name, None)
        self._process.update(wanted)
        self._given = frozenset(wanted)
