"""What a worker makes known: its tasks as its settings complete them, and the queues and limits that its code declares."""

from __future__ import annotations

from detent.protocol.models import WorkerRegistration
from detent.sdk.declarations import declarations
from detent.sdk.registry import registry
from detent.worker.settings import WorkerSettings


def registration_of(settings: WorkerSettings) -> WorkerRegistration:
    """Return the registration of the code that is loaded. Raises `DefinitionError` for a type that is no schema."""
    tasks = registry.all()
    inline = [task.limits.inline for task in tasks if task.limits.inline is not None]
    return WorkerRegistration(
        tasks=tuple(task.registration(settings.default_retry, settings.max_duration, settings.ttl) for task in tasks),
        limits=(*declarations.all(), *inline),
        retention=settings.retention,
        version=settings.version,
    )
