"""An article, from the author's desk to the printed page: checked, judged by an editor, and given its pictures."""

import asyncio
from dataclasses import dataclass, field

from pydantic import BaseModel

from detent import INHERIT, Context, Result, Retry, heartbeats, logger, metadata, step, tags, task, wait
from tasks.pictures import Picture, shrink


@dataclass
class Article:
    title: str
    author: str
    text: str
    pictures: list[Picture] = field(default_factory=list)


class Verdict(BaseModel):
    """What an editor says."""

    is_accepted: bool
    by: str


@step
def count_words(text: str) -> int:
    return len(text.split())


@step(retry=Retry(max_attempts=3, min_timeout="100ms"))
async def check_spelling(text: str) -> list[str]:
    """Return the words that are wrong. A long text gives other runs their turn."""
    mistakes = []
    for word in text.split():
        await heartbeats.yield_()
        if word == "teh":
            mistakes.append(word)
    return mistakes


@task
async def publish_article(article: Article, ctx: Context) -> str:
    """See an article through."""
    metadata.set("state", "being checked").set("author", article.author)
    async with logger.trace("check", run=ctx.run.id) as span:
        words, mistakes = await asyncio.gather(count_words.async_(article.text), check_spelling(article.text))
        span.set(words=words)
    if mistakes:
        return f"back to the author: {', '.join(mistakes)}"

    await tags.add(f"author:{article.author}")
    token = await wait.create_token(output=Verdict, timeout="14d", tags=f"article:{article.title}")
    metadata.set("state", "before the editors")
    verdict = await wait.for_token(token)
    if not verdict.ok:
        return "the editors forgot it"
    if not verdict.output.is_accepted:
        return f"refused by {verdict.output.by}"

    metadata.set("state", "having its pictures made").set("pictures", 0)
    shrunk = await shrink.batch_trigger_and_wait(article.pictures, tags=INHERIT)
    made = sum(each.ok for each in shrunk.runs)
    page = await step("lay out", lay_out, article.title, words, made)
    metadata.set("state", "published")
    await metadata.flush()
    return page


def lay_out(title: str, words: int, pictures: int) -> str:
    return f"{title}: {words} words and {pictures} pictures"


@publish_article.on_complete
def tell_the_author(payload: Article, result: Result[str]) -> None:
    logger.info("to the author", author=payload.author, news=result.output if result.ok else result.error.message)
