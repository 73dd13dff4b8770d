"""What the office does, outside of runs: `python examples/office.py`, beside a worker, with the same DETENT_DATABASE_URL.

Both need the same DETENT_ENCRYPTION_KEY, too: what the office sets for the runs is kept sealed.
"""

from __future__ import annotations

import asyncio
import os

import psycopg

from detent import batch, concurrency_limits, envvars, queues, runs, tasks, wait
from tasks.articles import Article, Verdict, publish_article
from tasks.newsletter import Issue, Reader, letters, publish, smtp, welcome
from tasks.pictures import Picture, archive_pictures
from tasks.subscriptions import Subscription, subscribe

want_reminders = tasks.ref("want_reminders", payload=dict[str, str], output=str)


async def take_in_an_article() -> None:
    article = Article("Waiting", "Ada", "It costs nothing to wait", [Picture("clock", 900), Picture("chair", 400)])
    handle = await publish_article.trigger(article, metadata={"source": "mail"}, tags="spring", max_attempts=2)
    while not (tokens := await wait.list_tokens(status="WAITING", tags="article:Waiting")).items:  # noqa: ASYNC110
        await asyncio.sleep(0.05)  # an editor looks in now and then
    await wait.complete_token(tokens.items[0].id, Verdict(is_accepted=True, by="Eve"))
    run = await runs.poll(handle)
    print(f"article    {run.output} {run.metadata}")


async def send_an_issue() -> None:
    """Hold letters back until the issue is there, and let fewer of them out at a time tonight."""
    await queues.pause(letters)
    await concurrency_limits.override(smtp, total=2)
    readers = [Reader(f"{name}@example.com", is_paying=name == "Bob") for name in ("Ada", "Bob", "Eve")]
    handles = [await publish.trigger(Issue(title, readers)) for title in ("Spring", "Summer")]
    await queues.resume(letters)
    archives = {(await runs.poll(handle)).output or "" for handle in handles}
    await runs.add_tags(handles[0], "front page")
    await runs.update_metadata(handles[0], {"sent by": "the office"})
    built = [line.message for archive in archives async for line in runs.logs(archive)]
    await concurrency_limits.reset(smtp)
    sent = [run async for run in runs.list(task_id="send", status="COMPLETED")]
    print(f"issues     {len(sent)} letters sent, and {built[0]}")


async def sign_up(dsn: str) -> None:
    """Enter a reader and welcome her: both, or neither."""
    await envvars.create("MAGAZINE_SENDER", "office@example.com")
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("create table if not exists readers (address text primary key)")
        await connection.execute("insert into readers values ('ada@example.com') on conflict do nothing")
        handle = await welcome.trigger(Reader("ada@example.com"), connection=connection)
    print(f"sign-up    {(await runs.poll(handle)).status}")


async def take_orders() -> None:
    """Subscriptions of four readers, one of whom thinks better of it."""
    made = await batch.trigger(
        [
            subscribe.item(Subscription(reader="Rich@example.com", cents=9900), priority=60),
            tasks.item("subscribe", {"reader": "Early@example.com", "cents": 9900}),
            tasks.item("subscribe", {"reader": "Poor@example.com", "cents": 9900}),
            subscribe.item(Subscription(reader="Fickle@example.com", cents=9900), delay="1h"),
        ]
    )
    await runs.reschedule(made.runs[3].id, "2d")
    await runs.cancel(made.runs[3].id, reason="changed her mind")
    refused = await runs.poll(made.runs[2].id)
    off = [result for result in (await batch.results(made)).runs if not result.ok]
    print(f"orders     {made.run_count} taken, {len(off)} called off; one was refused: {refused.output}")


async def tidy_up() -> None:
    first = await archive_pictures.trigger(["clock", "chair"], delay="1m")
    again = await runs.replay(first, payload=["clock"])
    print(f"archive    {(await runs.retrieve(first)).status}, and once more as {(await runs.retrieve(again)).task_id}")
    reminders = await want_reminders.trigger_and_poll({"reader": "ada@example.com", "timezone": "Asia/Tokyo"})
    print(f"breakfast  {reminders.output}")


async def main(dsn: str) -> None:
    await take_in_an_article()
    await send_an_issue()
    await sign_up(dsn)
    await take_orders()
    await tidy_up()


if __name__ == "__main__":
    asyncio.run(main(os.environ["DETENT_DATABASE_URL"]))
