"""Env files: variables for the processes of a command, below those that the shell has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detent.errors import ConfigError
from detent.sdk import env_files
from detent.worker.variables import GivenVariables

OF_DEVELOPMENT = (".env", ".env.development", ".env.local", ".env.development.local")
"""What `detent dev` loads by itself from the project's folder; the later ones go before the earlier ones."""


class EnvFiles:
    """Files of variables. Each `load` makes them those of this process, and takes back what is in none of them any more."""

    def __init__(self, files: Sequence[Path], *, optional: Sequence[Path] = ()) -> None:
        self._files, self._optional, self._variables = tuple(files), tuple(optional), GivenVariables()

    @property
    def paths(self) -> tuple[Path, ...]:
        return (*self._optional, *self._files)

    def load(self) -> None:
        """Read the files anew. Raises `ConfigError` for one that cannot be read."""
        values: dict[str, str] = {}
        for file in self.paths:
            if file in self._files or file.is_file():
                values |= read(file)
        self._variables.give(values)


def of_development(folder: Path, named: Sequence[Path]) -> EnvFiles:
    """Return the env files of a project in development; those that are *named* go before its own."""
    return EnvFiles([file.resolve() for file in named], optional=[folder / name for name in OF_DEVELOPMENT])


def read(file: Path) -> dict[str, str]:
    """Return the variables in a file. Raises `ConfigError`."""
    try:
        return env_files.parse(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError:
        raise ConfigError(f"there is no env file {file}; name one that is there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the env file {file} cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
