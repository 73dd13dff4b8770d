"""The skills that lie beside this file, as their front matter tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
FILE_NAME = "SKILL.md"
_FENCE = "---\n"
_ITEM = "  - "


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    name: str
    description: str
    """What it covers, and when to load it."""
    version: str
    """Of the detent that it describes."""
    file: Path
    sources: tuple[Path, ...]
    """The pages that it draws from."""

    @property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")


def shipped() -> list[Skill]:
    """Return every skill, by name."""
    return [_read(file) for file in sorted(FOLDER.glob(f"*/{FILE_NAME}"))]


def find(name: str) -> Skill | None:
    return next((skill for skill in shipped() if skill.name == name), None)


def pages() -> Path:
    """Return the folder of the documentation: it lies in an installed package, and in a clone beside `src`."""
    package = FOLDER.parent
    installed = package / "docs"
    return installed if installed.is_dir() else package.parents[1] / "docs"


def _read(file: Path) -> Skill:
    fields = _front_matter(file.read_text(encoding="utf-8"))
    return Skill(
        name="".join(fields["name"]),
        description="".join(fields["description"]),
        version="".join(fields["version"]),
        file=file,
        sources=tuple(pages().parent / page for page in fields["sources"]),
    )


def _front_matter(text: str) -> dict[str, list[str]]:
    """Return the fields on top of a file. Of YAML it knows texts on one line, and lists of them: no skill needs more."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in text.split(_FENCE, 2)[1].splitlines():
        if line.startswith(_ITEM):
            fields[name].append(line.removeprefix(_ITEM))
        else:
            name, _, value = line.partition(":")
            fields[name] = [value.strip()] if value.strip() else []
    return fields
