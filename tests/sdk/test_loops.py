"""Connections of several event loops: one after another, side by side, closed under way."""

from __future__ import annotations

import pytest

from detent import tasks
from tests.pooler import connections, is_wanted
from tests.sdk.script import lines

pytestmark = pytest.mark.usefixtures("nothing_kept")

TURNS = 5


def assert_few(counts: list[str], most: int) -> None:
    """Of connections; those of a pooler are not detent's to count."""
    assert is_wanted() or all(int(count) <= most for count in counts), counts


def test_one_loop_after_another_leaves_nothing(home: str) -> None:
    script = """
async def main(n):
    await asyncio.gather(*(tasks.trigger("charge", n) for n in range(20)))
    return len(servers())

held = [asyncio.run(main(n)) for n in range(5)]
print(max(held))
"""
    assert_few(lines(script, home), 2)


@pytest.mark.parametrize("turn", range(TURNS))
async def test_each_test_may_have_a_loop_of_its_own(home: str, turn: int) -> None:
    await tasks.trigger("charge", turn)
    assert 1 <= connections(home) <= 2


def test_loops_of_two_threads_at_once_have_connections_of_their_own(home: str) -> None:
    script = """
together = threading.Barrier(2)

async def main():
    for n in range(50):
        await tasks.trigger("charge", n)
    await asyncio.to_thread(together.wait)
    sys.stdout.write(f"{len(servers())}\\n")
    await asyncio.to_thread(together.wait)

threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    assert_few(lines(script, home), 4)


def test_calls_under_way_are_cancelled_with_their_loop(home: str) -> None:
    script = """
async def main():
    for n in range(20):
        asyncio.ensure_future(tasks.trigger("charge", n))
        asyncio.ensure_future(tasks.trigger_and_poll("charge", n))
    await tasks.trigger("charge", 20)

for _ in range(3):
    asyncio.run(main())
print("done")
"""
    assert lines(script, home) == ["done"]


def test_a_loop_that_is_closed_by_hand_is_left_clean_by_shutdown_asyncgens(home: str) -> None:
    script = """
for n in range(4):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(tasks.trigger("charge", n))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
print("over")
"""
    assert lines(script, home) == ["over"]
