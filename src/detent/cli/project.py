"""The project that a command is about: the nearest folder, from the working directory up, that is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = "detent_config.py"
FOLDER = ".detent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    root: Path

    @property
    def folder(self) -> Path:
        """Where its embedded database lives."""
        return self.root / FOLDER

    @property
    def shown(self) -> str:
        """Its place, as short as the working directory allows."""
        here = Path.cwd()
        return str(self.root.relative_to(here)) if self.root.is_relative_to(here) else str(self.root)


def find(start: Path) -> Project | None:
    """Return the project around *start*: the nearest folder with a config file or a `.detent` folder."""
    folder = start.resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / CONFIG_FILE).is_file() or (candidate / FOLDER).is_dir():
            return Project(root=candidate)
    return None
