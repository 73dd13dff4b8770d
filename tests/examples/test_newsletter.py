"""The example project's newsletter, on a database and a worker."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.database import Server
from tests.examples.page import ROOT, Block
from tests.examples.reader import Reader

NEWSLETTER = ROOT / "examples" / "tasks" / "newsletter.py"
PUBLISHED = """
import asyncio

from detent import runs
from tasks.newsletter import Issue, Reader, publish, welcome

await welcome.trigger(Reader("ada@example.com"))
readers = [Reader(f"{name}@example.com", is_paying=name == "Bob") for name in ("Ada", "Bob", "Eve")]
issues = await asyncio.gather(*[publish.trigger(Issue(title, readers)) for title in ("Spring", "Summer")])
ended = [await runs.poll(issue) for issue in issues]
print(ended[0].output == ended[1].output)  # => True
sent = [run async for run in runs.list(task_id="send", status="COMPLETED")]
assert len(sent) == 6
print({run.concurrency_key for run in sent}, {run.queue for run in sent})  # => {'example.com'} {'letters'}
"""


def test_issues_published_together_reach_all_readers_and_share_one_archive(
    project: Path, server: Server, template: str
) -> None:
    with server.new_database(template) as dsn, closing(Reader(project, dsn, lambda: dsn)) as reader:
        source = f"# tasks/newsletter.py\n{NEWSLETTER.read_text(encoding='utf-8')}"
        reader.save_all([Block(language="python", text=source, place=str(NEWSLETTER))])
        reader.serve()
        reader.read(Block(language="python", text=PUBLISHED, place=__file__))
        assert not reader.tasks_never_run()
