"""Options that belong together, given to a command as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Options, each by its name, and what makes one value of those that were given."""

    options: Mapping[str, object]
    read: Callable[[dict[str, object]], object]


def grouped(**groups: Group) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return a decorator that puts groups of options in the places of the parameters that are named like them."""

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        def carry_out(**given: object) -> object:
            values = {
                name: group.read({option: value for option in group.options if (value := given.pop(option)) not in (None, [])})
                for name, group in groups.items()
            }
            return command(**values, **given)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            parameters += _options(groups[name]) if name in groups else [parameter.replace(kind=parameter.KEYWORD_ONLY)]
        # No `functools.wraps`: Typer would look up the types of the command's own parameters.
        carry_out.__name__, carry_out.__doc__ = command.__name__, command.__doc__
        carry_out.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return carry_out

    return decorate


def _options(group: Group) -> list[inspect.Parameter]:
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in group.options.items()
    ]
