"""What supervisor and runner tell each other: one JSON line a message, over a socket pair.

A message that was sent before the runner's loop got stuck has left the process already, for `send` writes to the kernel at
once; this is why a runner announces each lease before it asks for it (see `Announced`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast, get_args

log = logging.getLogger("detent.worker")

# ---- from the supervisor ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message: who the runner is."""

    settings: str
    session_id: str
    is_solo: bool
    """It executes one run at a time, alone."""
    is_spare: bool = False
    """A solo runner that waits for its run however long that takes."""
    cgroup: str = ""
    """The folder of the cgroup that holds it to the machine of its run; empty: none could be made."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the environment gives to runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Runs may be ready: lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """These runs were asked to stop, if they are here."""

    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """These runs, under these fences, belong to somebody else by now."""

    holders: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReport:
    """Answer with `Report`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopen:
    """The session was ended by others: drop every run and open this one."""

    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Lease no more, end what executes within so many seconds, hand back the rest, exit."""

    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The variables that the environment gives to runs are these now."""

    variables: Mapping[str, str] = field(repr=False)


# ---- from the runner -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """The tasks are registered and the session is open."""

    session_id: str
    version: str
    task_ids: tuple[str, ...]
    has_process_tasks: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """The tasks do not load, or the database refuses this worker: a sentence, and the traceback for `--debug`."""

    message: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A lease call under this fence is about to be made: what it brings is held, until a `Report` says otherwise."""

    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is held, and the lease calls without an answer."""

    held: tuple[tuple[str, int], ...]
    in_flight: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Whether the runner has room for more, and how many runs it executes."""

    has_room: bool
    executing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confined:
    """From here on this process is held to a machine."""

    machine: str
    memory_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned:
    """Code of this run does not end: a replacement is wanted, no more is leased here."""

    run_id: str
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Nothing is left to do here: the process may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What befell runs, for people: (kind, run id, task id, attempt, seconds, detail) each."""

    events: tuple[tuple[str, str, str, int, float, str], ...]


ToRunner: TypeAlias = Hello | Work | Cancelled | Lost | AskReport | Reopen | Drain | Given
ToSupervisor: TypeAlias = Up | NotStarted | Announced | Report | Load | Confined | Poisoned | Finished | Happened
Message: TypeAlias = ToRunner | ToSupervisor

_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
    return json.dumps({"is": type(message).__name__} | fields, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    fields = {name: _frozen(value) for name, value in json.loads(line).items()}
    return _KINDS[str(fields.pop("is"))](**fields)  # type: ignore[arg-type]  # both ends are this module


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in cast("list[object]", value)) if isinstance(value, list) else value


class Channel(asyncio.Protocol):
    """One end, on an event loop."""

    def __init__(self, receive: Callable[[Message], None], on_close: Callable[[], None]) -> None:
        self.receive, self._on_close = receive, on_close
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def open(
        cls, end: socket.socket, receive: Callable[[Message], None], on_close: Callable[[], None]
    ) -> Channel:
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(receive, on_close), sock=end)
        return channel

    def send(self, message: Message) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    async def flushed(self) -> None:
        """Return when the kernel has everything that was sent."""
        await self._writable.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._partial += data
        *lines, rest = self._partial.split(b"\n")
        self._partial = rest
        for line in lines:
            self._take(bytes(line))

    def _take(self, line: bytes) -> None:
        try:
            self.receive(decode(line))
        except Exception:  # an error here would close the channel, and with it end the runner and all it executes
            # The kind alone: the rest may be secret.
            log.exception("a message could not be taken: %r", line.partition(b",")[0])

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._transport = None
        self._on_close()
