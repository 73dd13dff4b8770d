"""Pictures: work that keeps a processor busy, in threads, or in a process of its own where it might do harm."""

import zlib
from dataclasses import dataclass

from detent import CancelSignal, Retry, logger, metadata, step, task, usage, wait


@dataclass
class Picture:
    name: str
    size: int


@task(
    isolation="process",
    machine="darkroom",
    on_lost="fail",
    max_duration="1m",
    retry=Retry(max_attempts=2, oom_machine="small-2x"),
)
def shrink(picture: Picture, signal: CancelSignal) -> int:
    """Return how small a picture can be. A file that takes the decoder down, or all memory, takes no neighbour with it."""
    smaller = b""
    for _ in range(3):
        signal.raise_if_cancelled()
        smaller = zlib.compress(picture.name.encode() * picture.size)
    metadata.parent.increment("pictures")
    logger.info("shrunk", picture=picture.name, cpu_time=usage.current().cpu_time)
    return len(smaller)


@task
def archive_pictures(names: list[str]) -> int:
    """Put pictures on tape, once the tapes were changed. A plain function, in a thread: what it awaits blocks nobody else."""
    wait.sync.for_(hours=8)
    written = [step.sync("write", _write, name) for name in names]
    logger.info("on tape", pictures=len(written))
    return sum(written)


def _write(name: str) -> int:
    return len(name)
