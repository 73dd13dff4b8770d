"""`detent init`: make a folder a detent project."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from detent.cli import database, dependency, failure, printing, project
from detent.cli.options import Json

CONFIG = '''"""The settings of this project's tasks. Each key may be left out; what stands behind # is its default."""

from detent import define_config

config = define_config(
    # The project's name.
    project={project!r},
    # Folders of tasks, and which files in them are none.
    dirs=["tasks"],
    # ignore_patterns=["test_*.py", "*_test.py", "conftest.py"],
    #
    # For tasks that say nothing themselves (`from detent import Retries, Retry`):
    # retries=Retries(enabled_in_dev=True, default=Retry(max_attempts=3)),
    # How long one attempt may take, and a run wait for its start. (Default: as long as they like.)
    # max_duration="1h",
    # ttl="1d",
    #
    # The lowest lines that are kept of runs: "debug", "info", "warn", "error" or "none".
    # log_level="info",
    # What becomes of what runs print (`from detent import Console`).
    # console=Console(echo=None, capture=True),
    # How long runs are kept after their end (`from detent import Retention`); None is for ever.
    # retention=Retention(default="30d"),
    #
    # How many runs of tasks with isolation="process" one process executes.
    # process_keep_alive=1,
    # What each of these runs may take of memory and CPU (default: as much as it likes), and machines of your own
    # (`from detent import Machine`, as in {{"box": Machine(cpu=8, memory_gb=32)}}).
    # machine="small-1x",
    # machines={{}},
    # A PEM file of authorities that runs trust besides the usual ones. (Default: none.)
    # extra_ca_certs="./certs/ca.pem",
    # Where spans, log lines and metrics of runs go besides (`from detent import Telemetry`, with detent[telemetry]).
    # telemetry=Telemetry(exporters=[], log_exporters=[], metric_exporters=[]),
)
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

KEPT_OUT_OF_GIT = (f"{project.FOLDER}/", ".env", ".env*.local")
"""The database, and variables that are nobody else's business."""

app = typer.Typer()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder; made if it is not there.")] = Path(),
    name: Annotated[str | None, typer.Option("--project", help="The project's name.  [default: the folder's]")] = None,
    override: Annotated[bool, typer.Option("--override", help="Write the config and the first task anew.")] = False,
    add_dependency: Annotated[
        bool, typer.Option("--add-dependency", help="Add detent to pyproject.toml, with uv or poetry.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a project, with a first task.

    That is a config file, a folder of tasks, lines of .gitignore, and the embedded database. What is there already stays.
    """
    may_ask = not (yes or as_json) and sys.stdin.isatty()
    folder_name = path.resolve().name
    if name is None:
        name = str(typer.prompt("The project's name", default=folder_name)) if may_ask else folder_name
    made = [*_write_files(path, name, override=override), *_ignore(path)]
    version = None if database.named() else asyncio.run(_make_database(project.Project(root=path.resolve())))
    if dependency.missing_from(path):
        _see_to_dependency(path, is_wanted=add_dependency, may_ask=may_ask, is_silent=as_json)
    if as_json:
        printing.as_json({"project": str(path.resolve()), "made": [str(file) for file in made], "postgres": version})
        return
    for file in made:
        print(f"made {file}")
    if version:
        print(f"made {path / project.FOLDER} with PostgreSQL {version}")
    _say_what_next(path, has_example=any(file.name == "hello.py" for file in made))


def _write_files(root: Path, name: str, *, override: bool) -> Iterator[Path]:
    """Write what is not there yet, or all of it; yield what was written."""
    tasks = root / "tasks"
    wanted = {root / project.CONFIG_FILE: CONFIG.format(project=name)}
    if override or not tasks.exists():
        wanted[tasks / "hello.py"] = EXAMPLE
    for file, text in wanted.items():
        if override or not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            yield file


def _ignore(root: Path) -> Iterator[Path]:
    """Keep out of git what does not belong there; yield the file when it was changed."""
    file = root / ".gitignore"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [line for line in KEPT_OUT_OF_GIT if line not in text.splitlines()]
    if missing:
        before = f"{text}\n" if text and not text.endswith("\n") else text
        file.write_text(before + "".join(f"{line}\n" for line in missing), encoding="utf-8")
        yield file


def _see_to_dependency(root: Path, *, is_wanted: bool, may_ask: bool, is_silent: bool) -> None:
    adding = dependency.command(root)
    how = f"`{' '.join(adding)}`" if adding else 'add "detent" to its dependencies'
    if is_wanted or (may_ask and adding and typer.confirm(f"pyproject.toml does not name detent. Call {how}?")):
        dependency.add(root)
    elif not is_silent:
        print(f"{root / 'pyproject.toml'} does not name detent yet: {how}")


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
