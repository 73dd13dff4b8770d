"""The keys that environment variables are sealed with: the first seals, all open."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from detent.errors import EncryptionKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE = "DETENT_ENCRYPTION_KEY"
KEY_BYTES = 32
_NONCE_BYTES = 12


class Keyring:
    """Seals and opens with AES-256-GCM. Nothing of a key is read before it is used, and nothing of it is ever shown.

    *text*: one key, or several with commas between them, in base64 or hex; None is what DETENT_ENCRYPTION_KEY says.
    """

    def __init__(self, text: str | None = None) -> None:
        self._text = text

    @property
    def is_given(self) -> bool:
        """Whether there is a text at all."""
        return bool(self._given_text.strip())

    @property
    def newest(self) -> str:
        """What the key that seals is called. Raises `EncryptionKeyError`."""
        return next(iter(self._keys))

    def seal(self, text: str, about: str) -> bytes:
        """Return *text* sealed; it opens only with the same *about*. Raises `EncryptionKeyError`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._keys[self.newest].encrypt(nonce, text.encode(), about.encode())

    def open(self, sealed: bytes, about: str) -> str:
        """Return what was sealed. Raises `EncryptionKeyError` when no key opens it."""
        from cryptography.exceptions import InvalidTag

        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        for key in self._keys.values():
            try:
                return key.decrypt(nonce, text, about.encode()).decode()
            except InvalidTag:
                continue
        raise EncryptionKeyError("environment variables are sealed with another key")

    @property
    def _given_text(self) -> str:
        return os.environ.get(VARIABLE, "") if self._text is None else self._text

    @cached_property
    def _keys(self) -> Mapping[str, AESGCM]:
        # Loaded when a variable is sealed or opened: few programs do.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        keys = [_key(part.strip()) for part in self._given_text.split(",") if part.strip()]
        if not keys:
            raise EncryptionKeyError("environment variables are kept sealed, and there is no key")
        return {hashlib.sha256(key).hexdigest()[:12]: AESGCM(key) for key in keys}


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise EncryptionKeyError("a key of environment variables is neither base64 nor hex") from None
    if len(key) != KEY_BYTES:
        raise EncryptionKeyError(f"a key of environment variables has {len(key)} bytes")
    return key
