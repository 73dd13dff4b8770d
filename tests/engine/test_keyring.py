"""The keys of environment variables."""

from __future__ import annotations

import base64

import pytest

from detent.engine.keyring import Keyring
from detent.errors import EncryptionKeyError

OLD, NEW = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


def test_what_is_sealed_opens_with_the_same_key() -> None:
    assert Keyring(OLD).open(Keyring(OLD).seal("ü\n", "1:A"), "1:A") == "ü\n"


def test_same_text_is_sealed_otherwise_each_time() -> None:
    assert Keyring(OLD).seal("x", "1:A") != Keyring(OLD).seal("x", "1:A")


@pytest.mark.parametrize("spelling", [OLD, (b"\1" * 32).hex(), base64.urlsafe_b64encode(b"\1" * 32).decode(), f" {OLD} ,"])
def test_key_is_base64_or_hex(spelling: str) -> None:
    assert Keyring(spelling).open(Keyring(OLD).seal("x", "1:A"), "1:A") == "x"


def test_first_key_seals_and_all_open() -> None:
    both = Keyring(f"{NEW},{OLD}")
    assert both.open(Keyring(OLD).seal("x", "1:A"), "1:A") == "x"
    assert Keyring(NEW).open(both.seal("x", "1:A"), "1:A") == "x"
    assert both.newest == Keyring(NEW).newest != Keyring(OLD).newest


@pytest.mark.parametrize(("key", "about"), [(NEW, "1:A"), (OLD, "2:A"), (OLD, "1:B")])
def test_another_key_or_place_opens_nothing(key: str, about: str) -> None:
    with pytest.raises(EncryptionKeyError, match="are sealed with another key; DETENT_ENCRYPTION_KEY must hold the key"):
        Keyring(key).open(Keyring(OLD).seal("x", "1:A"), about)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "are kept sealed, and there is no key"),
        (" , ", "there is no key"),
        ("c2hvcnQ=", "a key of environment variables has 5 bytes"),
        ("not base64!", "a key of environment variables is neither base64 nor hex"),
        ("z" * 64, "a key of environment variables is neither base64 nor hex"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(text: str, why: str) -> None:
    with pytest.raises(EncryptionKeyError) as refused:
        Keyring(text).seal("x", "1:A")
    assert why in str(refused.value)
    assert "openssl rand -base64 32" in str(refused.value)
    assert not text.strip(" ,") or text not in str(refused.value)


def test_variable_of_the_process_is_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", OLD)
    assert Keyring().newest == Keyring(OLD).newest
