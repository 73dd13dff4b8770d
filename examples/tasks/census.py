"""A census of Python's standard library: a parent run fans out a child for each package and adds up what they find.

`make demo` runs it, and kills a process in the midst of it.
"""

import ast
import asyncio
import sysconfig
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from detent import Context, Retry, logger, task, wait

STDLIB = Path(sysconfig.get_path("stdlib"))
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages"}


@dataclass
class Package:
    name: str
    files: list[str]
    pause: float = 0
    """Seconds to wait before counting; a wait of more than five costs nothing, and survives a crash."""
    is_unlucky: bool = False
    """Whether its first attempt fails, on purpose."""


@dataclass
class Count:
    package: str
    files: int = 0
    functions: int = 0
    classes: int = 0
    lines: int = 0


class BadLuckError(Exception):
    pass


@task(retry=Retry(max_attempts=3, min_timeout="200ms", max_timeout="1s"))
async def count_package(package: Package, ctx: Context) -> Count:
    """Count what one package defines."""
    if package.is_unlucky and ctx.attempt.number == 1:
        raise BadLuckError(f"the first attempt at {package.name} fails on purpose")
    if package.pause:
        await wait.for_(seconds=package.pause)
    total = Count(package.name)
    for file in package.files:
        add(total, STDLIB / file)
        await asyncio.sleep(0.02)  # the other runs of this process get a turn, and you get to see it
    logger.info("counted", **asdict(total))
    return total


@task
async def census() -> Count:
    """Count the whole library, one child run a package, and add it up."""
    counted = await count_package.batch_trigger_and_wait(packages())
    total = Count("everything")
    for result in counted.runs:
        part = result.unwrap()
        total.files += part.files
        total.functions += part.functions
        total.classes += part.classes
        total.lines += part.lines
    return total


def packages() -> list[Package]:
    """Return the packages in order; modules that belong to none are put together by their first letter.

    Every fifth fails once, every seventh waits for six seconds, every fourth for one.
    """
    files = defaultdict[str, list[str]](list)
    for file in sorted(STDLIB.rglob("*.py")):
        place = file.relative_to(STDLIB)
        if not SKIPPED.intersection(place.parts):
            files[place.parts[0] if len(place.parts) > 1 else f"modules {place.name[0]}"].append(str(place))
    return [
        Package(name, files[name], 6 if number % 7 == 3 else number % 4 == 1, number % 5 == 2)
        for number, name in enumerate(sorted(files))
    ]


def add(total: Count, file: Path) -> None:
    """Add what one file defines."""
    source = file.read_bytes()
    total.files += 1
    total.lines += source.count(b"\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            total.functions += 1
        elif isinstance(node, ast.ClassDef):
            total.classes += 1
