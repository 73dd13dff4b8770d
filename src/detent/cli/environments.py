"""`detent environments`: the isolated copies of a project in a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from detent.cli import printing
from detent.cli.calling import call
from detent.cli.options import Json
from detent.protocol import environments
from detent.protocol.environments import EnvironmentType

if TYPE_CHECKING:
    from detent.cli.calling import Caller
    from detent.protocol.environments import EnvironmentRecord
    from detent.protocol.refusal import Refused

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="A slug such as prod; of a branch, preview/BRANCH.")]
Branch: TypeAlias = Annotated[str | None, typer.Option(help="The branch: `preview --branch B` is `preview/B`.")]

T = TypeVar("T")

app = typer.Typer(name="environments", help="See the environments of a database, make and archive them.", no_args_is_help=True)


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Archived ones, too.")] = False, as_json: Json = False
) -> None:
    """List environments, with the runs in them that are not over."""
    records = _call(lambda caller: caller.backend.list_environments())
    found = [record for record in records if all_ or record.archived_at is None]
    if as_json:
        printing.as_json(found)
    elif not found:
        print("there is no environment yet; a worker makes its own, or `detent environments create`")
    else:
        printing.table(["NAME", "TYPE", "QUEUED", "RUNNING", "WAITING", "STATE"], map(_row, found))


@app.command()
def create(
    name: Name,
    branch: Branch = None,
    kind: Annotated[
        EnvironmentType | None,
        typer.Option("--type", case_sensitive=False, help="What it is for.  [default: by the slug, else STAGING]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an environment, or bring an archived one back."""
    wanted = environments.chosen(name, branch)
    made = _accepted(_call(lambda caller: caller.backend.create_environment(wanted, kind)))
    if as_json:
        printing.as_json(made)
    else:
        print(f'environment "{made.name}" of type {made.type} is there')


@app.command()
def archive(name: Name, branch: Branch = None, as_json: Json = False) -> None:
    """Let nothing be written to an environment any more, and nothing start in it. Its runs stay as they are."""
    wanted = environments.chosen(name, branch)
    archived = _accepted(_call(lambda caller: caller.backend.archive_environment(wanted)))
    if as_json:
        printing.as_json(archived)
        return
    print(f'environment "{archived.name}" is archived; `detent environments create {archived.name}` brings it back')
    if archived.queued or archived.running or archived.waiting:
        print(f"in it: {archived.queued} queued, {archived.running} running, {archived.waiting} waiting")


def _call(made: Callable[[Caller], Awaitable[T]]) -> T:
    return call(environments.DEFAULT, made)


def _accepted(answer: EnvironmentRecord | Refused) -> EnvironmentRecord:
    from detent.protocol.refusal import Refused, to_error

    if isinstance(answer, Refused):
        raise to_error(answer)
    return answer


def _row(record: EnvironmentRecord) -> list[str]:
    counts = map(str, (record.queued, record.running, record.waiting))
    state = "active" if record.archived_at is None else "archived"
    return [record.name, record.type.value, *counts, state]
