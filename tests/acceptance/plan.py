"""Load whose results can be told beforehand: trees of runs, each with a number, planned failures and parts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

MODULUS = 1_000_000_007


@dataclass(frozen=True)
class Plan:
    """One run. `kind` is its task; it fails `failures` times at its end, then returns what its number and parts come to."""

    kind: str
    n: int
    failures: int = 0
    parts: tuple[Plan, ...] = ()

    @property
    def value(self) -> int:
        return combine(self.n, [part.value for part in self.parts if self.kind != "spawner"])

    @property
    def runs(self) -> int:
        """How many runs it makes, itself included: a new attempt has its children done anew."""
        return 1 + self.attempts * sum(part.runs for part in self.parts)

    @property
    def attempts(self) -> int:
        return self.failures + 1

    @property
    def executions(self) -> int:
        """How many attempts its runs make together."""
        return self.attempts * (1 + sum(part.executions for part in self.parts))


def combine(n: int, values: list[int]) -> int:
    result = n * n + 1
    for value in values:
        result = (result * 31 + value) % MODULUS
    return result


def plans(rng: random.Random, runs: int) -> list[Plan]:
    """Trees that make exactly so many runs."""
    made, left = [], runs
    while left:
        plan = rng.choice(_SHAPES)(rng)
        made.append(plan if plan.runs <= left else _leaf(rng))
        left -= made[-1].runs
    return made


def walk(plan: Plan) -> Iterator[Plan]:
    yield plan
    for part in plan.parts:
        yield from walk(part)


def _leaf(rng: random.Random) -> Plan:
    kind = "threaded" if rng.random() < 0.15 else "leaf"
    return Plan(kind, rng.randrange(1000), failures=rng.choice([0, 0, 0, 1, 2]))


def _chain(rng: random.Random) -> Plan:
    return Plan("chain", rng.randrange(1000), rng.choice([0, 0, 1]), tuple(_leaf(rng) for _ in range(3)))


def _fan(rng: random.Random) -> Plan:
    return Plan("fan", rng.randrange(1000), rng.choice([0, 0, 1]), tuple(_leaf(rng) for _ in range(12)))


def _sleeper(rng: random.Random) -> Plan:
    return Plan("sleeper", rng.randrange(1000), rng.choice([0, 1]), (_leaf(rng), _fan(rng)))


def _threaded_parent(rng: random.Random) -> Plan:
    return Plan("threaded_parent", rng.randrange(1000), 0, (_leaf(rng), _leaf(rng)))


def _threaded_fan(rng: random.Random) -> Plan:
    return Plan("threaded_fan", rng.randrange(1000), rng.choice([0, 1]), tuple(_leaf(rng) for _ in range(4)))


def _spawner(rng: random.Random) -> Plan:
    """Waits for none of its parts."""
    return Plan("spawner", rng.randrange(1000), rng.choice([0, 1]), tuple(_leaf(rng) for _ in range(4)))


def _gathering(rng: random.Random) -> Plan:
    return Plan("gathering", rng.randrange(1000), rng.choice([0, 1]), (_leaf(rng), _fan(rng), _leaf(rng)))


_SHAPES = (_leaf, _chain, _fan, _sleeper, _threaded_parent, _threaded_fan, _spawner, _gathering)
