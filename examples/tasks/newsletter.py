"""A newsletter: limits, a rate, a queue, priority, ttl and debounce, each where one needs it.

`detent dev examples/tasks/newsletter.py`, then `detent trigger publish --payload '{"title": "Spring", "readers": [...]}'`.
"""

import os
from dataclasses import dataclass

from detent import Concurrency, Debounce, RateLimit, concurrency_limit, logger, queue, task

letters = queue("letters")
"""Welcomes and issues leave in one order."""
smtp = concurrency_limit("smtp", total=10, rate=RateLimit(100, "1s"))
"""What the mail server takes from all of us together."""


@dataclass
class Reader:
    address: str
    is_paying: bool = False


@dataclass
class Issue:
    title: str
    readers: list[Reader]


@dataclass
class Letter:
    to: str
    title: str


@task(queue=letters, concurrency=[Concurrency(per_key=2), smtp], ttl="1d")
async def send(letter: Letter) -> None:
    """Send one letter: two at once to a provider, and never one that is a day late."""
    sender = os.environ.get("MAGAZINE_SENDER", "nobody@localhost")  # set for all runs by `detent envvars set`, or by the office
    logger.info("sent", to=letter.to, title=letter.title, sender=sender)


@task(queue=letters, concurrency=smtp)
async def welcome(reader: Reader) -> None:
    logger.info("welcomed", to=reader.address)


@task
async def publish(issue: Issue) -> str:
    """Send an issue to all its readers, to those who pay first, and put it into the archive."""
    await send.batch_trigger_and_wait(
        send.item(
            Letter(reader.address, issue.title),
            concurrency_key=reader.address.partition("@")[2],
            priority=60 if reader.is_paying else 0,
        )
        for reader in issue.readers
    )
    archived = await rebuild_archive.trigger_and_wait(debounce=Debounce("archive", "2s", max_delay="1m"))
    return archived.id


@task(concurrency=1)
async def rebuild_archive() -> None:
    """Build the archive anew: once for all issues that come in a short time, and never twice at once."""
    logger.info("built the archive")
