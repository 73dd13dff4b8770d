"""A moment as a caller names it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

When: TypeAlias = timedelta | datetime
"""A moment: so long from now by the database's clock, or an aware date."""
