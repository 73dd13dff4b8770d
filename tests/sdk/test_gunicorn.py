"""A web application under gunicorn that has used detent before gunicorn forked its workers from it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pooler import connections
from tests.sdk.script import PATIENCE, environment, left

pytestmark = pytest.mark.usefixtures("nothing_kept")

SHOP = """
import os
from detent import tasks

print("loaded", tasks.sync.trigger("charge", {"by": os.getpid()}).id, flush=True)

def wsgi(environ, start_response):
    run = tasks.sync.trigger("charge", {"by": os.getpid()})
    start_response("200 OK", [("content-type", "text/plain")])
    return [f"{os.getpid()} {run.id}".encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        run = await tasks.trigger("charge", {"by": os.getpid()})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{os.getpid()} {run.id}".encode()})
"""
WORKERS = 2
REQUESTS = 40
# Not ResourceWarning as such: gunicorn has some of its own.
COMPLAINTS = (
    "Traceback", "never awaited", "unclosed event loop", "deleted while still open", "Event loop is closed", "[ERROR]", "SIGKILL"
)  # fmt: skip
ENDING = 5.0
"""Seconds: less than gunicorn leaves its workers before it kills them."""


@pytest.mark.parametrize(
    "options", [["shop:wsgi"], ["shop:wsgi", "--threads", "4"], ["shop:asgi", "-k", "uvicorn.workers.UvicornWorker"]]
)
def test_workers_forked_from_an_application_that_has_triggered_trigger_too(
    home: str, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    seen: dict[str, str] = {}
    with serving(home, tmp_path, options) as address, ThreadPoolExecutor(8) as threads:
        deadline = time.monotonic() + PATIENCE
        while len(set(seen.values())) < WORKERS and time.monotonic() < deadline:
            for pid, run_id in threads.map(lambda _: ask(address), range(REQUESTS)):
                assert run_id not in seen
                seen[run_id] = pid
        assert connections(home) <= 2 * (1 + WORKERS)
    assert len(set(seen.values())) == WORKERS, "the children answered with the connections of their parent"
    assert left(home) == 0


def ask(address: str) -> tuple[str, str]:
    """Return who answered, and the run that it triggered."""
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        pid, run_id = answer.read().decode().split()
    return pid, run_id


@contextmanager
def serving(dsn: str, folder: Path, options: list[str]) -> Iterator[str]:
    """Serve until the end of the block; SIGTERM must end it soon, and with nothing to complain about."""
    log = folder / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "default", "-m", "gunicorn", "--preload", "--workers", str(WORKERS),
             "--graceful-timeout", "10", "--no-control-socket", "--bind", f"fd://{listener.fileno()}", *options],
            cwd=folder, env=environment(dsn), pass_fds=[listener.fileno()], stdout=output, stderr=output,
        )  # fmt: skip
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
            process.terminate()
            assert process.wait(ENDING) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
            print(log.read_text())
    said = log.read_text()
    assert said.count("loaded") == 1
    assert not [complaint for complaint in COMPLAINTS if complaint in said]
