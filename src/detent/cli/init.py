"""`detent init`: make a folder a detent project."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from detent.cli import database, failure, printing, project
from detent.cli.options import Json

CONFIG = '''"""The settings of this project's tasks."""

from detent import define_config

config = define_config(project={project!r}, dirs=["tasks"])
'''

EXAMPLE = '''"""A first task. `detent dev` runs it, and loads it again whenever you save this file."""

from dataclasses import dataclass

from detent import logger, task


@dataclass
class Person:
    name: str


@task(id="hello")
async def hello(person: Person) -> str:
    logger.info("greeting", name=person.name)
    return f"Hello, {person.name}!"
'''

EXAMPLE_CALL = """detent trigger hello --payload '{"name": "Ada"}' --wait"""

app = typer.Typer()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The project's folder; made if it is not there.")] = Path(),
    as_json: Json = False,
) -> None:
    """Make a project, with a first task.

    That is a config file, a folder of tasks, and the embedded database. What is there already stays as it is.
    """
    made = list(_write_files(path))
    version = None if database.named() else asyncio.run(_make_database(project.Project(root=path.resolve())))
    if as_json:
        printing.as_json({"project": str(path.resolve()), "made": [str(file) for file in made], "postgres": version})
        return
    for file in made:
        print(f"made {file}")
    if version:
        print(f"made {path / project.FOLDER} with PostgreSQL {version}")
    _say_what_next(path, has_example=any(file.name == "hello.py" for file in made))


def _write_files(root: Path) -> list[Path]:
    """Write what is not there yet; return what was written."""
    tasks = root / "tasks"
    wanted = {root / project.CONFIG_FILE: CONFIG.format(project=root.resolve().name)}
    if not tasks.exists():
        wanted[tasks / "hello.py"] = EXAMPLE
    made = []
    for file, text in wanted.items():
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            made.append(file)
    return made


async def _make_database(made: project.Project) -> str | None:
    """Make and migrate the embedded database, so that the first `detent dev` is as quick as the others."""
    from detent import migrations
    from detent.errors import EmbeddedServerError

    try:
        server = database.start_embedded(made)
    except EmbeddedServerError as error:
        failure.warn(str(error))
        return None
    with server:
        await migrations.apply(server.dsn)
        return server.version


def _say_what_next(root: Path, *, has_example: bool) -> None:
    print("\nNow run:\n")
    if root.resolve() != Path.cwd():
        print(f"  cd {root}")
    print("  detent dev")
    if has_example:
        print(f"\nand, in another terminal in the same folder:\n\n  {EXAMPLE_CALL}")
