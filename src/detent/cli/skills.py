"""`detent skills`: what this detent brings for coding agents, and pointers to it in a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from detent import skills
from detent.cli import failure, printing, project
from detent.cli.options import Json

if TYPE_CHECKING:
    from detent.skills import Pointer, Skill

SkillArgument: TypeAlias = Annotated[str, typer.Argument(metavar="SKILL", help="The skill's name, as `list` has it.")]

app = typer.Typer(name="skills", help="What this detent brings for coding agents.", no_args_is_help=True)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the skills, and say where the documentation lies."""
    found = skills.shipped()
    if as_json:
        printing.as_json({"skills": [_fields(skill) for skill in found], "docs": str(skills.pages())})
        return
    printing.table(["SKILL", "VERSION", "FILE"], ([skill.name, skill.version, str(skill.file)] for skill in found))
    print(f"\nthe pages of the documentation lie in {skills.pages()}")


@app.command()
def show(name: SkillArgument, as_json: Json = False) -> None:
    """Print a skill."""
    skill = skills.find(name)
    if skill is None:
        known = ", ".join(each.name for each in skills.shipped())
        raise failure.UsageError(f'there is no skill "{name}"; these are: {known}')
    if as_json:
        printing.as_json(_fields(skill) | {"text": skill.text})
    else:
        print(skill.text, end="")


@app.command()
def install(
    into: Annotated[
        Path | None,
        typer.Option(
            "--into",
            metavar="FOLDER",
            help="The folder of skills, relative to the project.  [default: those of .claude/skills, .cursor/skills, "
            ".github/skills and .agents/skills that are there, else .agents/skills]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write into the project a file for each skill that points to it.

    It names the file in the installed package, so that it holds for every later version.
    """
    found = project.find(Path.cwd())
    root = found.root if found is not None else Path.cwd()
    pointers = [pointer for skill in skills.shipped() for pointer in skills.install(skill, root, into)]
    if as_json:
        printing.as_json([{"file": str(pointer.file), "is_changed": pointer.is_changed} for pointer in pointers])
        return
    for pointer in pointers:
        print(_said(pointer, root))


def _said(pointer: Pointer, root: Path) -> str:
    shown = pointer.file.relative_to(root) if pointer.file.is_relative_to(root) else pointer.file
    return f"wrote {shown}" if pointer.is_changed else f"{shown} is there already"


def _fields(skill: Skill) -> dict[str, object]:
    return {
        "name": skill.name,
        "description": skill.description,
        "version": skill.version,
        "file": str(skill.file),
        "sources": [str(page) for page in skill.sources],
    }
