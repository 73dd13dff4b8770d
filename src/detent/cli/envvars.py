"""`detent envvars`: the variables that the runs of an environment find in `os.environ`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from detent.cli import failure, printing
from detent.cli.calling import call
from detent.cli.options import DEFAULT_ENVIRONMENT, Environment, Json
from detent.protocol import environments

if TYPE_CHECKING:
    from detent.protocol.envvars import EnvVar

HIDDEN = "********"

Branch: TypeAlias = Annotated[
    str | None, typer.Option(help="A branch of --env preview.  [default: none: what all branches are given]")
]
Secret: TypeAlias = Annotated[bool, typer.Option("--secret", help="Never show it again; it stays secret until it is removed.")]

app = typer.Typer(name="envvars", help="See and change the variables that runs are given.", no_args_is_help=True)


@app.command("list")
def list_(environment: Environment = DEFAULT_ENVIRONMENT, branch: Branch = None, as_json: Json = False) -> None:
    """List variables by name, secret ones without their value."""
    name = environments.chosen(environment, branch)
    found = call(name, lambda caller: caller.client.envvars.list())
    if as_json:
        printing.as_json(found)
    elif not found:
        print(f'environment "{name}" has no variables yet; set one with `detent envvars set NAME=VALUE`')
    else:
        printing.table(["NAME", "VALUE", "FROM", "CHANGED"], (_row(variable, name) for variable in found))


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    environment: Environment = DEFAULT_ENVIRONMENT,
    branch: Branch = None,
    as_json: Json = False,
) -> None:
    """Print the value of a variable that is no secret."""
    found = call(environments.chosen(environment, branch), lambda caller: caller.client.envvars.retrieve(name))
    if as_json:
        printing.as_json(found)
    elif found.value is None:
        raise failure.UsageError(f"{name} is secret: its value is given to runs alone; set another one if you have lost it")
    else:
        print(found.value)


@app.command("set")
def set_(
    variables: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE…", help="The value of a NAME alone is asked for, or read from stdin.")
    ],
    is_secret: Secret = False,
    environment: Environment = DEFAULT_ENVIRONMENT,
    branch: Branch = None,
    as_json: Json = False,
) -> None:
    """Set variables; those that are there get the new value. Runs have it within ten seconds."""
    given = dict(map(_pair, variables))
    name = environments.chosen(environment, branch)
    _tell(
        "set",
        name,
        call(name, lambda caller: caller.client.envvars.upload(given, override=True, is_secret=is_secret)),
        as_json=as_json,
    )


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An env file, such as .env.production.")],
    override: Annotated[bool, typer.Option("--override", help="Change those that are there, too.")] = False,
    is_secret: Secret = False,
    environment: Environment = DEFAULT_ENVIRONMENT,
    branch: Branch = None,
    as_json: Json = False,
) -> None:
    """Set the variables of an env file: all of them, or none."""
    from detent.cli import env_files

    given, name = env_files.read(file), environments.chosen(environment, branch)
    _tell(
        "set",
        name,
        call(name, lambda caller: caller.client.envvars.upload(given, override=override, is_secret=is_secret)),
        kept=len(given),
        as_json=as_json,
    )


@app.command()
def unset(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Their names.")],
    environment: Environment = DEFAULT_ENVIRONMENT,
    branch: Branch = None,
    as_json: Json = False,
) -> None:
    """Remove variables. A branch has those of its preview again."""
    name = environments.chosen(environment, branch)
    gone = call(name, lambda caller: caller.backend.delete_envvars(names))
    if missing := [each for each, was_there in zip(names, gone, strict=True) if not was_there]:
        failure.warn(f'environment "{name}" had no {", ".join(missing)} of its own')
    removed = tuple(each for each, was_there in zip(names, gone, strict=True) if was_there)
    _tell("removed", name, removed, as_json=as_json)


@app.command()
def rotate(as_json: Json = False) -> None:
    """Seal the variables of all environments with the newest key.

    Put a new key before the old one in DETENT_ENCRYPTION_KEY, for every process; then call this, then take the old one out.
    """
    count = call(environments.DEFAULT, lambda caller: caller.backend.rotate_envvars())
    if as_json:
        printing.as_json({"rotated": count})
    else:
        print(f"{count} variables were sealed with another key than the newest; now all are sealed with that")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    return name, value if equals else _asked(name)


def _asked(name: str) -> str:
    """Return a value that neither the shell's history nor the list of processes gets to see."""
    if sys.stdin.isatty():
        return str(typer.prompt(name, hide_input=True, default="", show_default=False))
    return sys.stdin.read().removesuffix("\n")


def _tell(done: str, environment: str, names: tuple[str, ...], *, as_json: bool, kept: int = 0) -> None:
    if as_json:
        printing.as_json({"environment": environment, done: names})
        return
    print(f'{done} in environment "{environment}": {", ".join(names) or "nothing"}')
    if kept > len(names):
        print(f"{kept - len(names)} were there already and stay as they are; --override changes them, too")


def _row(variable: EnvVar, environment: str) -> list[str]:
    origin = environments.split(environment)[0] if variable.is_inherited else environment
    value = HIDDEN if variable.value is None else variable.value
    return [variable.name, value, origin, printing.ago(variable.updated_at)]
