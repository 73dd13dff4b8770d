"""What the package ships for coding agents: skills, each in a folder with a `SKILL.md`, and the pages that they draw from.

A skill is of the version of the detent that it is installed with; what a project holds is a pointer to it, which never goes
stale. Imports nothing of detent. Start reading at `skill`.
"""

from detent.skills.pointer import Pointer, install
from detent.skills.skill import Skill, find, pages, shipped

__all__ = ["Pointer", "Skill", "find", "install", "pages", "shipped"]
