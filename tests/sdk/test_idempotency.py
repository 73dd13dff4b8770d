"""Idempotency keys: the reference's recipe, so that its clients share keys with ours."""

from __future__ import annotations

import copy
import pickle
from hashlib import sha256

import pytest

from detent import IdempotencyKey, idempotency_keys
from detent.sdk import idempotency
from tests.sdk.fake_run import FakeRun


def hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("scope", ["run", "attempt", "global"])
def test_outside_a_run_every_scope_is_the_plain_hash(scope: idempotency.Scope) -> None:
    key = idempotency_keys.create("order 1", scope=scope)

    assert key == hashed("order 1")
    assert (key.scope, key.user_key) == (scope, "order 1")


async def test_inside_a_run_the_scope_adds_the_run_and_the_attempt(run: FakeRun) -> None:
    run_id = run.context.run.id

    assert idempotency_keys.create("k") == hashed(f"k-{run_id}")
    assert idempotency_keys.create(["a", "b"], scope="run") == hashed(f"a-b-{run_id}")
    assert idempotency_keys.create("k", "attempt") == hashed(f"k-{run_id}-2")
    assert idempotency_keys.create("k", scope="global") == hashed("k")


async def test_raw_text_is_run_scoped_inside_a_task(run: FakeRun) -> None:
    key = idempotency.of_option("k")

    assert (key, key.scope, key.user_key) == (hashed(f"k-{run.context.run.id}"), "run", "k")


def test_raw_text_is_global_outside() -> None:
    key = idempotency.of_option(["a", "b"])

    assert (key, key.scope, key.user_key) == (hashed("a-b"), "global", "a-b")


async def test_key_already_made_is_not_hashed_again(run: FakeRun) -> None:
    made = idempotency_keys.create("k", scope="global")

    assert idempotency.of_option(made) is made
    assert idempotency.of_option("f" * 64) == "f" * 64


def test_item_of_a_batch_derives_its_key_from_the_batch() -> None:
    assert idempotency.of_item("k", 3) == hashed(f"{hashed('k')}-3")


def test_key_survives_copying_and_pickling() -> None:
    key = idempotency_keys.create("k", scope="global")

    for twin in (copy.copy(key), pickle.loads(pickle.dumps(key))):
        assert isinstance(twin, IdempotencyKey)
        assert (twin, twin.scope, twin.user_key) == (key, "global", "k")


def test_unknown_scope_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scope='globl' is no scope; did you mean \"global\"\?"):
        idempotency_keys.create("k", scope="globl")  # type: ignore[arg-type]


async def test_reset_needs_to_know_whose_key_it_is() -> None:
    with pytest.raises(ValueError, match='a key of scope "run" belongs to a run: give parent_run_id='):
        idempotency_keys.reset("charge", "k", scope="run")
    with pytest.raises(ValueError, match="give attempt_number="):
        idempotency_keys.reset("charge", "k", scope="attempt", parent_run_id="run_1")
