"""How much a run may carry besides its payload."""

from __future__ import annotations

TAGS_LIMIT = 10
TAG_LENGTH_LIMIT = 128
METADATA_LIMIT = 262_144
"""Bytes of JSON."""

WAIT_KEY_LIMIT = 2_048
"""Bytes of an idempotency key that is stored as it was given."""
