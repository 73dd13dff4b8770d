from __future__ import annotations

import asyncio
import socket
from typing import get_args

import pytest

from detent.worker.control import (
    Announced,
    AskReport,
    Channel,
    Happened,
    Hello,
    Lost,
    Message,
    Report,
    Up,
    decode,
    encode,
)
from detent.worker.settings import WorkerSettings

SOME = [
    Hello(settings="{}", session_id="session_1", is_solo=True),
    Lost(holders=(("run_1", -(2**62)), ("run_2", 5))),
    AskReport(),
    Up(session_id="session_1", version="1.0", task_ids=("a\nb",), has_process_tasks=False),
    Report(held=(("run_1", 3),), in_flight=()),
    Happened(events=(("failed", "run_1", "charge", 2, 0.5, "Fehler: ü\n"),)),
]


@pytest.mark.parametrize("message", SOME, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


def test_a_message_is_one_line() -> None:
    assert all(encode(message).count(b"\n") == 1 for message in SOME)


def test_kinds_have_names_of_their_own() -> None:
    names = [kind.__name__ for kind in get_args(Message)]
    assert len(set(names)) == len(names)


async def test_a_channel_gives_messages_in_order_whatever_their_size() -> None:
    near, far = socket.socketpair()
    received: asyncio.Queue[Message] = asyncio.Queue()
    closed = asyncio.Event()
    there = await Channel.open(far, received.put_nowait, closed.set)
    here = await Channel.open(near, lambda message: None, lambda: None)
    sent: list[Message] = [
        Report(held=tuple((f"run_{number}", number) for number in range(20_000)), in_flight=(1,)),
        Announced(fence=2),
    ]
    for message in sent:
        here.send(message)
    await here.flushed()
    assert [await received.get() for _ in sent] == sent
    here.close()
    await closed.wait()
    there.close()


def test_settings_travel_as_json() -> None:
    settings = WorkerSettings(database_url="postgresql://x", sources=("a.py", "b"), max_duration=1.5)
    assert WorkerSettings.from_json(settings.to_json()) == settings
