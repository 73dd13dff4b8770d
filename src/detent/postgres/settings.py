"""How the embedded server is set: a laptop's share of memory, nothing given up of durability."""

from __future__ import annotations

from pathlib import Path

SETTINGS = {
    "port": "5432",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    # Short statements on few cores: parallel workers and compilation cost more than they save, and the shared memory
    # that parallel workers need is scarce in containers.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "jit": "off",
    "max_logical_replication_workers": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
}


def arguments(socket_folder: Path) -> list[str]:
    """The settings as options of `postgres`, given at each start: data made by an older detent gets them too."""
    pairs = {**SETTINGS, "unix_socket_directories": str(socket_folder)}
    return [argument for name, value in pairs.items() for argument in ("-c", f"{name}={value}")]
