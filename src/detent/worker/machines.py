"""The machine of a run: as it was triggered or moved, else its task's, else the config's."""

from __future__ import annotations

from detent.protocol import run_error
from detent.protocol.leases import Lease
from detent.protocol.machines import PRESETS
from detent.protocol.run_error import ErrorCode, RunError
from detent.sdk.context import MachineContext
from detent.sdk.registry import registry
from detent.worker.settings import WorkerSettings


def name_of(lease: Lease, settings: WorkerSettings) -> str | None:
    task = registry.get(lease.task_id)
    return lease.machine or (task and task.machine) or settings.machine


def machine_of(lease: Lease, settings: WorkerSettings) -> MachineContext | None:
    """Return the machine that a leased run is on; None for no limit, and for one that this worker does not know."""
    name = name_of(lease, settings)
    size = settings.machines.get(name) or PRESETS.get(name) if name is not None else None
    return None if name is None or size is None else MachineContext(name=name, cpu=size.cpu, memory_gb=size.memory_gb)


def out_of_memory(name: str, memory_gb: float) -> RunError:
    """Return the error of a run that took more than its machine has."""
    return run_error.internal(ErrorCode.OUT_OF_MEMORY, explain(name, memory_gb))


def explain(name: str, memory_gb: float) -> str:
    """
    >>> explain("micro", 0.25)
    'the run needed more than the 0.25 GB of machine "micro"; give its task a larger machine=, or Retry(oom_machine=...)'
    """
    return (
        f'the run needed more than the {memory_gb:g} GB of machine "{name}"; '
        "give its task a larger machine=, or Retry(oom_machine=...)"
    )
