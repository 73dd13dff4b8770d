"""Environment variables: kept sealed, opened for runs and for callers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from detent.engine.db import Db, Row
from detent.engine.environments import KnownEnvironment
from detent.engine.keyring import Keyring
from detent.errors import EncryptionKeyError
from detent.protocol.envvars import EnvVar, EnvVarValue, PutMode, Variables

_MOST_ROTATED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """The variables of one environment, with what opens them."""

    db: Db
    here: KnownEnvironment
    keyring: Keyring


async def list_envvars(vault: Vault, names: Sequence[str] | None) -> list[EnvVar]:
    params = {"environment": vault.here.number, "names": None if names is None else list(names)}
    return [_record(vault, row) for row in await vault.db.call("find_envvars", params)]


async def read_variables(vault: Vault, known: str | None) -> Variables | None:
    rows = await vault.db.call("read_variables", {"environment": vault.here.number, "known": known})
    if not rows:
        return None
    values, missing, why = dict[str, str](), list[str](), ""
    for _, environment, name, sealed in rows:
        if name is None:
            continue
        try:
            values[str(name)] = _open(vault.keyring, environment, name, sealed)
        except EncryptionKeyError as error:
            missing.append(str(name))
            why = str(error)
    obstacle = f"runs are not given {', '.join(missing)}: {why}" if missing else ""
    return Variables(fingerprint=str(rows[0][0]), values=values, obstacle=obstacle)


async def put_envvars(vault: Vault, values: Sequence[EnvVarValue], mode: PutMode) -> list[bool]:
    sealed = [
        {
            "name": value.name,
            "sealed": vault.keyring.seal(value.value, _about(vault.here.number, value.name)).hex(),
            "is_secret": value.is_secret,
        }
        for value in values
    ]
    params = {
        "environment": vault.here.number,
        "key": vault.keyring.newest,
        "variables": json.dumps(sealed),
        "mode": mode.value,
    }
    written = {str(name) for (name,) in await vault.db.call("put_envvars", params)}
    return [value.name in written for value in values]


async def delete_envvars(vault: Vault, names: Sequence[str]) -> list[bool]:
    params = {"environment": vault.here.number, "names": list(names), "is_repeat": False}
    gone = {str(name) for (name,) in await vault.db.call("delete_envvars", params)}
    return [name in gone for name in names]


async def rotate_envvars(db: Db, keyring: Keyring) -> int:
    """Seal anew what another key seals; what is changed meanwhile is sealed with the newest key by whoever changes it."""
    count, environment, name = 0, 0, ""
    while True:
        params = {"key": keyring.newest, "environment": environment, "name": name, "most": _MOST_ROTATED}
        rows = await db.call("find_sealed_otherwise", params)
        if not rows:
            return count
        anew = [_seal_anew(keyring, row) for row in rows]
        await db.call("seal_anew", {"key": keyring.newest, "variables": json.dumps(anew)})
        count += len(rows)
        environment, name = cast("int", rows[-1][0]), str(rows[-1][1])


def _seal_anew(keyring: Keyring, row: Row) -> dict[str, object]:
    environment, name, sealed = row
    text = _open(keyring, environment, name, sealed)
    new = keyring.seal(text, _about(environment, name))
    return {"environment": environment, "name": name, "old": cast("bytes", sealed).hex(), "new": new.hex()}


def _open(keyring: Keyring, environment: object, name: object, sealed: object) -> str:
    return keyring.open(cast("bytes", sealed), _about(environment, name))


def _about(environment: object, name: object) -> str:
    """Return what a sealed value belongs to, so that it opens nowhere else."""
    return f"{environment}:{name}"


def _record(vault: Vault, row: Row) -> EnvVar:
    name, sealed, is_secret, environment, created_at, updated_at = row
    return EnvVar(
        name=str(name),
        value=None if is_secret else _open(vault.keyring, environment, name, sealed),
        is_secret=bool(is_secret),
        is_inherited=environment != vault.here.number,
        created_at=cast("datetime", created_at),
        updated_at=cast("datetime", updated_at),
    )
