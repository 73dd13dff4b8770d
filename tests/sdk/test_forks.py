"""A client that was used before a fork: the child opens anew, the parent's connections stay as they are."""

from __future__ import annotations

import pytest

from tests.pooler import is_wanted
from tests.sdk.script import lines

pytestmark = pytest.mark.usefixtures("nothing_kept")

# What a pooler's servers serve says nothing about who holds the connection to the pooler.
SERVERS = "" if is_wanted() else "assert before <= servers(), (before, servers())\n"


@pytest.mark.parametrize("child", ["tasks.sync.trigger('charge', 2)", "pass"])
@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_a_forked_child_leaves_the_connections_of_its_parent_alone(home: str, child: str, end: str) -> None:
    script = f"""
tasks.sync.trigger("charge", 1)
before = servers()
pid = os.fork()
if pid == 0:
    {child}
    {end}
assert os.waitpid(pid, 0)[1] == 0
{SERVERS}
tasks.sync.trigger("charge", 3)
{SERVERS}
print(made())
"""
    assert lines(script, home) == ["2" if child == "pass" else "3"]


def test_children_of_multiprocessing_call_and_come_back(home: str) -> None:
    script = f"""
def call(n):
    return tasks.sync.trigger("charge", n).id

call(0)
before = servers()
with multiprocessing.get_context("fork").Pool(3) as pool:
    ids = pool.map(call, range(9))
    pool.close()
    pool.join()
{SERVERS}
call(10)
print(len(set(ids)), made())
"""
    assert lines(script, home) == ["9 11"]


def test_a_child_forked_by_a_coroutine_starts_a_loop_of_its_own(home: str) -> None:
    script = f"""
async def main():
    await tasks.trigger("charge", 1)
    before = servers()
    pid = os.fork()
    if pid == 0:
        asyncio.run(tasks.trigger("charge", 2))
        tasks.sync.trigger("charge", 3)
        os._exit(0)
    assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
    {SERVERS}
    await tasks.trigger("charge", 4)
    {SERVERS}
    print(made())

asyncio.run(main())
"""
    assert lines(script, home) == ["4"]


def test_a_fork_while_another_thread_is_in_the_midst_of_calls_hangs_nobody(home: str) -> None:
    script = """
over = threading.Event()

def calling():
    while not over.is_set():
        tasks.sync.trigger("charge", 0)

tasks.sync.trigger("charge", 0)
thread = threading.Thread(target=calling)
thread.start()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        tasks.sync.trigger("child", 1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
over.set()
thread.join()
print("over")
"""
    assert lines(script, home) == ["over"]


def test_a_client_made_before_the_fork_serves_both_sides(home: str) -> None:
    script = f"""
client = Client(database_url=os.environ["DETENT_DATABASE_URL"])
client.sync.tasks.trigger("charge", 1)
before = servers()
pid = os.fork()
if pid == 0:
    with client.sync as mine:
        mine.tasks.trigger("charge", 2)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
{SERVERS}
print(made())
client.sync.close()
"""
    assert lines(script, home) == ["2"]
