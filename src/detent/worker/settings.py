"""What a worker is told, by its command line and the project's config; it travels to the runners as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from detent.protocol.environments import DEFAULT
from detent.protocol.machines import Machine
from detent.protocol.retention import RetentionRule
from detent.protocol.retry import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Times are seconds."""

    database_url: str
    environment: str = DEFAULT
    project: str = ""
    sources: tuple[str, ...] = ()
    """Files and folders that hold the tasks; empty lets the runner discover them as the config says."""
    folder: str = "."
    """Where the project lies: runners start there."""
    version: str | None = None
    """Name of the code's version; None lets the engine name it."""
    runners: int = 2
    async_slots: int = 500
    """Runs on the event loop of one runner at once."""
    thread_slots: int = 32
    max_resident: int = 20_000
    """Waiting runs of all runners that stay in memory; those beyond are replayed when they go on."""
    solo_limit: int = 4
    """Processes at once for runs that must be alone in one."""
    max_attempts: int = 3
    retry_factor: float = 2
    retry_min: float = 1
    retry_max: float = 10
    retry_randomize: bool = True
    oom_machine: str | None = None
    is_retrying: bool = True
    """False turns retries off (`Retries(enabled_in_dev=False)`)."""
    max_duration: float | None = None
    """Of one attempt of a task that has none of its own."""
    ttl: float | None = None
    """In the queue, of runs of a task that has none of its own; 0 and None are for ever."""
    machine: str | None = None
    """Of tasks that name none themselves."""
    machines: Mapping[str, Machine] = field(default_factory=dict)
    """The project's own, by their names."""
    log_level: str = "info"
    retention: tuple[RetentionRule, ...] | None = None
    """None leaves the environment's rules as they are."""
    echo_output: bool = False
    """What runs print also goes to the worker's own output."""
    capture_output: bool = True
    """What runs print is kept with them; False: it goes to the worker's own output alone."""
    process_keep_alive: int = 1
    """Runs of tasks with `isolation="process"` that one process executes, one after the other."""
    extra_ca_certs: str | None = None
    """A PEM file of authorities that runs trust besides the usual ones."""
    has_telemetry: bool = False
    """The config says where spans, metrics and log lines go besides: each runner loads it, for those are objects."""
    send_events: bool = False
    """Runners tell the supervisor of each run's start and end, for the live lines of `detent dev`."""
    grace: float = 30
    """What executing runs are given to end in a drain."""
    reload_grace: float = 0.5
    """The same, when their code is being replaced."""

    @property
    def default_retry(self) -> Retry:
        return Retry(
            max_attempts=self.max_attempts,
            factor=self.retry_factor,
            min_timeout=self.retry_min,
            max_timeout=self.retry_max,
            randomize=self.retry_randomize,
            oom_machine=self.oom_machine,
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSettings:
        fields = json.loads(text)
        machines = {name: Machine(**machine) for name, machine in fields["machines"].items()}
        return cls(
            **fields
            | {"sources": tuple(fields["sources"]), "retention": _rules(fields["retention"]), "machines": machines}
        )


def _rules(fields: list[dict[str, str | int | None]] | None) -> tuple[RetentionRule, ...] | None:
    return None if fields is None else tuple(map(RetentionRule.from_fields, fields))
