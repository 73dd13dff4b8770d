"""What a worker makes known: its tasks as its settings complete them, and the queues and limits that its code declares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detent.protocol.registration import TaskRegistration, WorkerRegistration
from detent.sdk.declarations import declarations
from detent.sdk.registry import registry
from detent.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from detent.sdk.definition import AnyTask


def registration_of(settings: WorkerSettings) -> WorkerRegistration:
    """Return the registration of the code that is loaded. Raises `DefinitionError` for a type that is no schema."""
    tasks = registry.all()
    inline = [task.limits.inline for task in tasks if task.limits.inline is not None]
    return WorkerRegistration(
        tasks=tuple(_registration_of(task, settings) for task in tasks),
        limits=(*declarations.all(), *inline),
        retention=settings.retention,
        version=settings.version,
        machines=tuple(settings.machines),
    )


def _registration_of(task: AnyTask, settings: WorkerSettings) -> TaskRegistration:
    registration = task.registration(settings.default_retry, settings.max_duration, settings.ttl, settings.machine)
    return registration if settings.is_retrying else replace(registration, oom_machine=None)
