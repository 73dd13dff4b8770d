"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Environment: TypeAlias = Annotated[
    str, typer.Option("--env", envvar="DETENT_ENVIRONMENT", help="The environment.", show_default=True)
]
DEFAULT_ENVIRONMENT = "dev"
