"""The machines that a project knows: the presets, and those of its config, once that is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from detent.protocol.machines import PRESETS, Machine
from detent.sdk import spelling

LONGEST_NAME = 128


class KnownMachines:
    """The machines of this process. `own` is None where no config has been loaded, as in a program that only triggers: there
    whatever has a name may be one of its machines."""

    def __init__(self) -> None:
        self.own: Mapping[str, Machine] | None = None

    def check(self, name: object) -> str:
        """Return *name* if a machine has it, or may. Raises `TypeError` and `ValueError` as `check_name` does."""
        text = check_text(name)
        return text if self.own is None else check_name(text, self.own)


def check_name(name: object, own: Collection[str]) -> str:
    """Return *name* if it is one of a preset or one of *own*. Raises `TypeError` for no text, `ValueError` for another."""
    text, known = check_text(name), {*PRESETS, *own}
    if text not in known:
        raise ValueError(f"there is no machine {text!r}{spelling.hint(text, known)}")
    return text


def check_text(name: object) -> str:
    """Return *name* if a machine may be named so. Raises `TypeError` and `ValueError`."""
    if not isinstance(name, str):
        raise TypeError(f'{name!r} must be the name of a machine, such as "small-2x"; the config names your own (machines=)')
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"{name!r} must be printable text of 1 to {LONGEST_NAME} characters")
    return name


machines = KnownMachines()
