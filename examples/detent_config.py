"""The settings of the magazine."""

from detent import Machine, Retention, Retries, Retry, define_config

config = define_config(
    project="magazine",
    dirs=["tasks"],
    retries=Retries(default=Retry(max_attempts=3, min_timeout="500ms")),
    max_duration="10m",
    retention=Retention(default="30d"),
    machines={"darkroom": Machine(cpu=0.5, memory_gb=0.5)},
    log_level="debug",
)
