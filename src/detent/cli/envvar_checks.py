"""Whether the variables of an environment can be given to its runs, judged."""

from __future__ import annotations

from collections.abc import Mapping

from detent.cli.finding import Finding, ok, warning, wrong
from detent.engine.keyring import Keyring
from detent.errors import EncryptionKeyError
from detent.protocol.envvars import Variables

_CHECK = "envvars"


def judge(variables: Variables, keyring: Keyring, process: Mapping[str, str]) -> Finding:
    """Judge what runs are given, and by a worker that has the variables of this *process*."""
    if variables.obstacle:
        return wrong(_CHECK, variables.obstacle)
    if own := ", ".join(sorted(variables.values.keys() & process.keys())):
        return warning(_CHECK, f"a worker started here gives runs its own {own}: unset what is not meant, here or there")
    if variables.values:
        return ok(_CHECK, f"{len(variables.values)}, and the key opens all")
    try:
        _ = keyring.newest
    except EncryptionKeyError as error:
        return ok(_CHECK, "none") if not keyring.is_given else wrong(_CHECK, str(error))
    return ok(_CHECK, "none; there is a key for them")
