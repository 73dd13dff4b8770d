"""Environment variables in the database: sealed there, opened for who asks, another fingerprint after each change."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable

import pytest
from psycopg import AsyncConnection

from detent.engine.backend import EngineBackend, connect
from detent.errors import EncryptionKeyError, NotFoundError
from detent.protocol.envvars import EnvVarValue, PutMode, Variables
from tests.engine.stage import Stage

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
Connect = Callable[..., EngineBackend]


@pytest.fixture
async def at(dsn: str) -> AsyncIterator[Connect]:
    """Connects to an environment, with a key."""
    opened: list[EngineBackend] = []

    def connect_to(name: str = "prod", key: str = OLD) -> EngineBackend:
        opened.append(connect(dsn, environment=name, encryption_key=key))
        return opened[-1]

    yield connect_to
    for backend in opened:
        await backend.close()


async def put(engine: EngineBackend, mode: PutMode = PutMode.SET, *, is_secret: bool = False, **values: str) -> list[bool]:
    return await engine.put_envvars(
        [EnvVarValue(name=name, value=value, is_secret=is_secret) for name, value in values.items()], mode
    )


async def found(engine: EngineBackend, **options: str) -> dict[str, str | None]:
    return {variable.name: variable.value for variable in await engine.list_envvars(**options)}  # type: ignore[arg-type]


async def given(engine: EngineBackend, known: str | None = None) -> Variables:
    variables = await engine.read_variables(known)
    assert variables is not None
    return variables


async def test_database_holds_no_value(at: Connect, conn: AsyncConnection) -> None:
    await put(at(), A="topsecret")
    cursor = await conn.execute("select envvars::text, encode(sealed, 'escape') from detent.envvars")
    assert "topsecret" not in str(await cursor.fetchall())


async def test_empty_text_is_a_value(at: Connect) -> None:
    await put(at(), A="")
    assert await found(at()) == {"A": ""}


async def test_secret_is_given_to_runs_alone_and_stays_one(at: Connect) -> None:
    engine = at()
    await put(engine, is_secret=True, A="x")
    await put(engine, A="y")
    (variable,) = await engine.list_envvars()
    assert (variable.value, variable.is_secret) == (None, True)
    assert (await given(engine)).values == {"A": "y"}


async def test_value_is_shown_nowhere() -> None:
    assert "topsecret" not in repr(EnvVarValue(name="A", value="topsecret"))
    assert "topsecret" not in repr(Variables(fingerprint="f", values={"A": "topsecret"}))


@pytest.mark.parametrize(
    ("mode", "written", "then"),
    [
        (PutMode.SET, [True, True], {"A": "new", "B": "new"}),
        (PutMode.KEEP, [False, True], {"A": "old", "B": "new"}),
        (PutMode.UPDATE, [True, False], {"A": "new"}),
    ],
)
async def test_mode_says_what_is_written(
    at: Connect, mode: PutMode, written: list[bool], then: dict[str, str]
) -> None:
    engine = at()
    await put(engine, A="old")
    assert await put(engine, mode, A="new", B="new") == written
    assert await found(engine) == then


async def test_variable_is_deleted_once(at: Connect) -> None:
    engine = at()
    await put(engine, A="1")
    assert await engine.delete_envvars(["A", "B"]) == [True, False]
    assert await found(engine) == {}


async def test_branch_has_the_variables_of_its_preview_and_its_own_before_them(at: Connect) -> None:
    preview, branch = at("preview"), at("preview/feat")
    await put(preview, A="all", B="all")
    await put(branch, B="branch", C="branch")
    assert await found(branch) == {"A": "all", "B": "branch", "C": "branch"}
    assert [variable.is_inherited for variable in await branch.list_envvars()] == [True, False, False]
    assert (await given(branch)).values == {"A": "all", "B": "branch", "C": "branch"}
    assert await found(preview) == {"A": "all", "B": "all"}

    assert await branch.delete_envvars(["A", "B"]) == [False, True]
    assert await found(branch) == {"A": "all", "B": "all", "C": "branch"}


async def test_variables_of_another_environment_are_asked_for_by_its_name(at: Connect) -> None:
    await at("dev").put_envvars([EnvVarValue(name="A", value="1")], PutMode.SET, environment="prod")
    assert await found(at("dev")) == {}
    assert await found(at("dev"), environment="prod") == await found(at("prod")) == {"A": "1"}
    with pytest.raises(NotFoundError, match='there is no environment "prdo"'):
        await found(at("dev"), environment="prdo")


async def test_fingerprint_is_another_after_each_change(at: Connect) -> None:
    engine, parent = at("preview/x"), at("preview")
    seen = [(await given(engine)).fingerprint]
    for change in (
        lambda: put(engine, A="1"),
        lambda: put(engine, A="1"),
        lambda: put(parent, B="1"),
        lambda: parent.delete_envvars(["B"]),
        lambda: engine.delete_envvars(["A"]),
    ):
        assert await engine.read_variables(seen[-1]) is None
        await change()
        seen.append((await given(engine, seen[-1])).fingerprint)
    assert seen[-1] == seen[0]


async def test_rotation_seals_all_anew_and_changes_nothing_for_runs(at: Connect) -> None:
    await put(at("dev"), A="1")
    await put(at("prod"), B="2", C="3")
    before = await given(at("prod"))
    both = at("dev", f"{NEW},{OLD}")
    assert [await both.rotate_envvars(), await both.rotate_envvars()] == [3, 0]
    assert await at("prod", NEW).read_variables(before.fingerprint) is None
    assert await found(at("prod", NEW)) == {"B": "2", "C": "3"}


async def test_wrong_key_is_an_error_for_callers_and_an_obstacle_for_runs(at: Connect) -> None:
    await put(at(), A="1")
    await put(at(key=NEW), B="2")
    with pytest.raises(EncryptionKeyError):
        await found(at(key=NEW))
    with pytest.raises(EncryptionKeyError):
        await at(key=NEW).rotate_envvars()

    variables = await given(at(key=NEW))
    assert variables.values == {"B": "2"}
    assert variables.obstacle.startswith("runs are not given A: environment variables are sealed with another key")


async def test_without_a_key_nothing_is_written_and_what_needs_none_goes_on(at: Connect) -> None:
    engine = at(key="")
    with pytest.raises(EncryptionKeyError, match="there is no key"):
        await put(engine, A="1")
    assert await found(engine) == {}
    assert (await given(engine)).values == {}
    await Stage(engine, None).worker("work")  # type: ignore[arg-type]  # it asks nothing of the connection


async def test_sealed_value_opens_in_its_own_place_only(at: Connect, conn: AsyncConnection) -> None:
    engine = at()
    await put(engine, A="1", B="2")
    await conn.execute("update detent.envvars set sealed = (select sealed from detent.envvars where name = 'A')")
    with pytest.raises(EncryptionKeyError):
        await found(engine)
