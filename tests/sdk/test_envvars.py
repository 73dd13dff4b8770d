"""`envvars`, inside a run and outside, on a database."""

from __future__ import annotations

import asyncio

import pytest

from detent import Client, ConfigError, EnvVar, NotFoundError, envvars

KEY = "a" * 64


@pytest.fixture(autouse=True)
def key(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", KEY)


async def values(environment: str | None = None) -> dict[str, str | None]:
    return {variable.name: variable.value for variable in await envvars.list(environment=environment)}


async def test_variable_is_created_updated_retrieved_and_deleted() -> None:
    await envvars.create("API_URL", "https://a")
    await envvars.update("API_URL", "https://b")
    found = await envvars.retrieve("API_URL")
    assert (found.name, found.value, found.is_secret, found.is_inherited) == ("API_URL", "https://b", False, False)
    assert found.updated_at > found.created_at

    await envvars.delete("API_URL")
    for call in (envvars.retrieve("API_URL"), envvars.update("API_URL", "x"), envvars.delete("API_URL")):
        with pytest.raises(NotFoundError, match='environment "dev" has no variable API_URL of its own'):
            await call


async def test_upload_takes_a_mapping_or_the_text_of_an_env_file() -> None:
    assert await envvars.upload({"A": "1", "B": "1"}) == ("A", "B")
    assert await envvars.upload("A=2\nC='a b'\n") == ("C",)
    assert await envvars.upload("A=3", override=True, is_secret=True) == ("A",)
    assert await values() == {"A": None, "B": "1", "C": "a b"}


async def test_upload_sets_all_or_none() -> None:
    with pytest.raises(ValueError, match="DETENT_SECRET cannot be set"):
        await envvars.upload({"A": "1", "DETENT_SECRET": "x"})
    assert await values() == {}


async def test_environment_is_named_or_that_of_the_client(home: str) -> None:
    await envvars.create("A", "prod", environment="prod")
    await envvars.create("A", "branch", environment="preview/feat/x")
    assert (await values(), await values("prod")) == ({}, {"A": "prod"})
    async with Client(database_url=home, environment="preview", branch="feat/x") as client:
        assert (await client.envvars.retrieve("A")).value == "branch"
    with pytest.raises(NotFoundError, match='there is no environment "prdo"'):
        await values("prdo")
    with pytest.raises(ConfigError, match="is no name of an environment"):
        await values("Prod")


@pytest.mark.parametrize("value", [5, None, "a\0b", "\ud800", "x" * 65_537])
async def test_value_that_cannot_be_kept_is_refused_without_showing_it(value: object) -> None:
    with pytest.raises(ValueError, match="the value of A ") as refused:
        await envvars.create("A", value)  # type: ignore[arg-type]
    assert "xxx" not in str(refused.value)


async def test_repr_shows_no_value() -> None:
    await envvars.create("A", "topsecret")
    (variable,) = await envvars.list()
    assert isinstance(variable, EnvVar)
    assert "topsecret" not in repr(variable)


def test_blocking_twins_do_the_same() -> None:
    envvars.sync.create("A", "1")
    assert envvars.sync.upload({"B": "2"}) == ("B",)
    envvars.sync.update("A", "3")
    envvars.sync.delete("B")
    assert [(variable.name, variable.value) for variable in envvars.sync.list()] == [("A", "3")]
    assert envvars.sync.retrieve("A").value == "3"


async def test_calls_that_come_together_do_not_disturb_each_other() -> None:
    await asyncio.gather(*(envvars.create(f"A{n}", str(n)) for n in range(20)))
    assert await values() == {f"A{n}": str(n) for n in range(20)}
