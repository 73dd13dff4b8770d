"""What holds for all tasks of the magazine. Loaded before the other files."""

import time

from detent import Context, Next, logger, tasks


@tasks.middleware("stopwatch")
async def stopwatch(next: Next) -> None:
    """Note how long each attempt takes."""
    began = time.monotonic()
    try:
        await next()
    finally:
        logger.debug("attempt over", seconds=round(time.monotonic() - began, 3))


@tasks.on_failure("editor")
def tell_the_editor(ctx: Context, error: BaseException) -> None:
    logger.error("failed for good", task=ctx.task.id, run=ctx.run.id, error=str(error))
