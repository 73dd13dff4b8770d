"""Random programs, and what each comes to: computed here, without detent."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

MODULUS = 1_000_000_007
ABORTED, TIMED_OUT, GIVEN_UP, STEP_FAILED = 13, 17, 19, 23
"""What a program makes of a child that failed, a token nobody completed, a wait it gave up, a step that failed."""

PARALLEL = {"gather", "as_completed"}
IN_THREADS = ("step", "sleep", "token", "child", "batch")
NESTED = ("sequence", "gather", "as_completed")


@dataclass(frozen=True)
class Node:
    """A program, or something that a program does. Its name stands once in its program, and `parts` are what it consists of.

    `failures`: so many attempts of a program fail, each after the part number `fails_after`. One that `aborts` fails for good.
    """

    kind: str
    name: str
    n: int
    parts: tuple[Node, ...] = ()
    failures: int = 0
    fails_after: int = 0
    aborts: bool = False

    @property
    def is_program(self) -> bool:
        return self.kind in {"program", "threaded"}


@dataclass(frozen=True)
class Job:
    """The payload of a run: its program, and which operation of which attempt of its parent asked for it."""

    program: Node
    origin: str


def value(node: Node) -> int:
    """What it comes to when it succeeds."""
    match node.kind:
        case "child":
            return outcome(node.parts[0])
        case "batch":
            return combine(node.n, [outcome(part) for part in node.parts])
        case "token_late":
            return TIMED_OUT
        case "given_up":
            return GIVEN_UP
        case "step_failing":
            return STEP_FAILED
        case _:
            return combine(node.n, [value(part) for part in node.parts])


def outcome(program: Node) -> int:
    """What a parent makes of it."""
    return ABORTED if program.aborts else value(program)


def combine(n: int, values: list[int]) -> int:
    result = n * n + 1
    for each in values:
        result = (result * 31 + each) % MODULUS
    return result


def attempts(program: Node, cut_short: Collection[int] = ()) -> int:
    """How many attempts it takes, when those numbers were cut short: an attempt of which nothing is known but that it was."""
    return next(n for n in itertools.count(program.failures + 1) if n not in cut_short)


def children(program: Node, cut_short: Collection[int] = ()) -> Iterator[tuple[str, Node]]:
    """The runs that a program makes in all its attempts but those, by their origins."""
    for attempt in range(1, attempts(program, cut_short) + 1):
        if attempt not in cut_short:
            yield from children_at(program, attempt)


def children_at(program: Node, attempt: int) -> Iterator[tuple[str, Node]]:
    """The runs that an attempt makes, when it is not cut short."""
    for part in program.parts if attempt > program.failures else program.parts[: program.fails_after + 1]:
        yield from _children_of(part, attempt)


def _children_of(node: Node, attempt: int) -> Iterator[tuple[str, Node]]:
    for i, part in enumerate(node.parts):
        if part.is_program:
            yield origin(node, i, attempt), part
        else:
            yield from _children_of(part, attempt)


def origin(node: Node, index: int, attempt: int) -> str:
    return f"{node.name}.{index}@{attempt}"


def runs(program: Node) -> int:
    """How many runs it makes, itself included, unless it is cut short: a new attempt has its children done anew."""
    return 1 + sum(runs(child) for _, child in children(program))


def programs(rng: random.Random, most: int) -> Iterator[Node]:
    """Programs that together make about so many runs."""
    left = most
    while left > 0:
        made = _program(rng, depth=rng.choice([0, 0, 1, 1, 1, 2]), budget=min(left, 25))
        left -= runs(made)
        yield made


def _program(rng: random.Random, depth: int, budget: int) -> Node:
    kind = "threaded" if rng.random() < 0.2 else "program"
    kinds = IN_THREADS if kind == "threaded" else tuple(_WEIGHTS)
    while True:
        parts = tuple(_operation(rng, kinds, depth) for _ in range(rng.randint(1, 4)))
        failures = rng.choice([0, 0, 0, 1, 2])
        fails_after, aborts = rng.randrange(len(parts)), rng.random() < 0.08
        made = _named(Node(kind, "", rng.randrange(1000), parts, failures, fails_after, aborts), "p")
        if runs(made) <= budget:
            return made


_WEIGHTS = {
    "step": 6, "step_retried": 2, "step_failing": 1, "sleep": 3, "token": 3, "token_before": 2, "token_late": 1,
    "given_up": 2, "in_time": 2, "child": 4, "batch": 3, "gather": 3, "as_completed": 3,
}  # fmt: skip
_LEAVES = ("step", "step", "sleep", "token", "step_retried")


def _operation(rng: random.Random, kinds: tuple[str, ...], depth: int, nesting: int = 0) -> Node:
    kind = rng.choices(kinds, [_WEIGHTS[each] for each in kinds])[0]
    n = rng.randrange(1000)
    match kind:
        case "child" | "batch" if depth > 0:
            count = 1 if kind == "child" else rng.randint(1, 5)
            return Node(kind, "", n, tuple(_program(rng, depth - 1, 12) for _ in range(count)))
        case "gather" | "as_completed" if nesting < 2:
            branches = tuple(_branch(rng, kinds, depth, nesting + 1) for _ in range(rng.randint(2, 4)))
            return Node(kind, "", n, branches)
        case "child" | "batch" | "gather" | "as_completed":
            return Node(rng.choice(_LEAVES) if "gather" in kinds else "step", "", n)
        case _:
            return Node(kind, "", n)


def _branch(rng: random.Random, kinds: tuple[str, ...], depth: int, nesting: int) -> Node:
    parts = tuple(_operation(rng, kinds, depth, nesting) for _ in range(rng.randint(1, 2)))
    return parts[0] if len(parts) == 1 else Node("sequence", "", rng.randrange(1000), parts)


def _named(node: Node, name: str) -> Node:
    """Name everything in a program; programs within it are named already."""
    if node.is_program and name != "p":
        return node
    return replace(node, name=name, parts=tuple(_named(part, f"{name}-{i}") for i, part in enumerate(node.parts)))
