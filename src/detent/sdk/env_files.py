"""The text of env files (`.env`): names and values."""

from __future__ import annotations


def parse(text: str, what: str = "the text") -> dict[str, str]:
    """Return the variables that an env file's text sets; the last one of a name counts, and nothing in them is replaced.

    Raises `ValueError` naming the line that is none, and never a value.

    >>> parse('A=1\\nexport B="two words"  # why\\nEMPTY=')
    {'A': '1', 'B': 'two words', 'EMPTY': ''}
    """
    from io import StringIO

    from dotenv.parser import parse_stream

    found: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            raise ValueError(f'{what} has no NAME=value in line {binding.original.line}; quote a value of several lines with "')
        if binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found
