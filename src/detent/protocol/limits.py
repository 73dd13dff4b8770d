"""How much a run may carry besides its payload."""

from __future__ import annotations

TAGS_LIMIT = 10
TAG_LENGTH_LIMIT = 128
METADATA_LIMIT = 262_144
"""Bytes of JSON."""
