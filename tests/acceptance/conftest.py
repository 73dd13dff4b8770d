"""Fixtures for acceptance tests: a stage on a database of its own, or one whose PostgreSQL may be killed."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.acceptance.power import OwnServer, own_server
from tests.acceptance.stage import Stage, playing
from tests.nursery import Nursery

SEED = "ACCEPTANCE_SEED"


@pytest.fixture
def rng() -> random.Random:
    """What chooses victims and moments; the seed of a failed test is in its output."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(1_000_000))
    print(f"to repeat: {SEED}={seed}")
    return random.Random(seed)


@pytest.fixture
async def stage(nursery: Nursery, fresh_dsn: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with playing(nursery, fresh_dsn, tmp_path) as stage:
        yield stage


@pytest.fixture
async def quiet_stage(nursery: Nursery, dsn: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """One on the database that tests of this process share: for those that start no worker."""
    async with playing(nursery, dsn, tmp_path) as stage:
        yield stage


@pytest.fixture
def power() -> Iterator[OwnServer]:
    with own_server() as server:
        yield server


@pytest.fixture
async def powered_stage(nursery: Nursery, power: OwnServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with playing(nursery, power.dsn, tmp_path) as stage:
        yield stage
