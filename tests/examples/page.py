"""A page of the documentation: its fenced blocks, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.py)\n")
PROMPT = "$ "


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    language: str
    text: str
    place: str
    """`file:line`, for failures."""

    @property
    def file(self) -> str | None:
        """The file of the reader's project that this block is, as its first line says: `# tasks/orders.py`."""
        found = _FILE.match(self.text) if self.language == "python" else None
        return found and found[1]

    @property
    def is_snippet(self) -> bool:
        """Whether it is Python that a caller executes."""
        return self.language == "python" and self.file is None

    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of a `console` block, each with the lines that it is said to print."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith(PROMPT):
                found.append((line.removeprefix(PROMPT).partition("  #")[0].rstrip(), []))
            else:
                assert found, f"{self.place}: a console block begins with a command"
                found[-1][1].append(line)
        return found


def pages() -> list[str]:
    """The pages of the documentation, and the skills that the package ships, relative to the repository."""
    skills = (ROOT / "src" / "detent" / "skills").glob("*/SKILL.md")
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *skills]
    return sorted(str(file.relative_to(ROOT)) for file in files)


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(language=found[1], text=found[2], place=f"{page}:{text.count(chr(10), 0, found.start()) + 2}")
        for found in _FENCE.finditer(text)
    ]
