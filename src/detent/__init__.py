"""Durable background tasks for Python on PostgreSQL: retries, waits of months, fan-out, and no lost runs."""

from importlib import import_module
from typing import TYPE_CHECKING

from detent.duration import Duration
from detent.errors import (
    AbortTaskRunError,
    ApiConnectionError,
    ApiError,
    AuthenticationError,
    BadRequestError,
    BatchTriggerError,
    BlockingCallError,
    ConfigError,
    ConflictError,
    DatabaseError,
    DatabaseRightsError,
    DatabaseUnreachableError,
    DatabaseVersionError,
    DefinitionError,
    DetentError,
    DuplicateLimitError,
    DuplicateTaskIdError,
    EmbeddedServerError,
    EncryptionKeyError,
    HookWaitError,
    InternalServerError,
    JournalFullError,
    LocalUnsetError,
    MaxDurationExceededError,
    MetadataTooLargeError,
    MiddlewareError,
    MigrationError,
    NonDeterminismError,
    NotFoundError,
    OutOfMemoryError,
    OutsideRunError,
    PayloadError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    ResultMisuseError,
    RunCancelledError,
    RunFailedError,
    ScheduleError,
    SchemaDriftError,
    SchemaVersionError,
    SerializationError,
    StaleRunError,
    StepError,
    SubtaskUnwrapError,
    TaskPayloadParsedError,
    TokenFailedError,
    TooManyTagsError,
    UnprocessableEntityError,
    WaitTimeoutError,
)
from detent.protocol.codec import JsonValue
from detent.protocol.retry import Retry
from detent.protocol.run_error import RunError
from detent.protocol.status import BatchStatus, RunStatus, TokenStatus
from detent.sdk.batch import batch
from detent.sdk.concurrency import Concurrency, ConcurrencyLimit, RateLimit, concurrency_limit
from detent.sdk.context import CancelSignal, Context
from detent.sdk.debounce import Debounce
from detent.sdk.handles import BatchHandle, BatchResult, RunHandle
from detent.sdk.hooks import Next, WaitInfo, WaitKind
from detent.sdk.idempotency import IdempotencyKey
from detent.sdk.idempotency_keys import idempotency_keys
from detent.sdk.inheritance import INHERIT
from detent.sdk.logger import logger
from detent.sdk.options import ChildOptions, TriggerOptions
from detent.sdk.page import Page
from detent.sdk.queue import Queue, queue
from detent.sdk.ref import BareTaskRef, TaskRef
from detent.sdk.result import Err, Ok, Result
from detent.sdk.runs import Run, RunPage, runs
from detent.sdk.step import step
from detent.sdk.task import BareTask, Task, schema_task, task
from detent.sdk.tasks import tasks
from detent.sdk.token import RetrievedToken, Token
from detent.sdk.triggering import Item
from detent.sdk.wait import wait

if TYPE_CHECKING:
    from detent.protocol.batches import BatchItemError, BatchRecord
    from detent.protocol.bulk import BulkKind, BulkRecord, BulkStatus
    from detent.protocol.cron import Cron
    from detent.protocol.environments import Environment, EnvironmentType
    from detent.protocol.envvars import EnvVar
    from detent.protocol.machines import Machine
    from detent.protocol.retention import Retention
    from detent.protocol.schedules import ScheduledPayload, ScheduleRecord, ScheduleType
    from detent.sdk.bulk import RunQuery
    from detent.sdk.catching import RetryAt, RetryWith, SkipRetrying
    from detent.sdk.client import Client
    from detent.sdk.concurrency_limits import RetrievedLimit, concurrency_limits
    from detent.sdk.config import Config, Console, Retries, define_config
    from detent.sdk.envvars import envvars
    from detent.sdk.fetching import AtReset, FetchRetry, ResetFormat
    from detent.sdk.heartbeats import heartbeats
    from detent.sdk.local import Local
    from detent.sdk.metadata import metadata
    from detent.sdk.queues import RetrievedQueue, queues
    from detent.sdk.retrying import retry
    from detent.sdk.schedules import schedules
    from detent.sdk.tags import tags
    from detent.sdk.usage import Spent, Usage, usage
else:
    _LATE = {
        "AtReset": "detent.sdk.fetching",
        "BatchItemError": "detent.protocol.batches",
        "BatchRecord": "detent.protocol.batches",
        "BulkKind": "detent.protocol.bulk",
        "BulkRecord": "detent.protocol.bulk",
        "BulkStatus": "detent.protocol.bulk",
        "Client": "detent.sdk.client",
        "Config": "detent.sdk.config",
        "Console": "detent.sdk.config",
        "Cron": "detent.protocol.cron",
        "EnvVar": "detent.protocol.envvars",
        "Environment": "detent.protocol.environments",
        "EnvironmentType": "detent.protocol.environments",
        "FetchRetry": "detent.sdk.fetching",
        "Local": "detent.sdk.local",
        "Machine": "detent.protocol.machines",
        "ResetFormat": "detent.sdk.fetching",
        "Retention": "detent.protocol.retention",
        "Retries": "detent.sdk.config",
        "RetrievedLimit": "detent.sdk.concurrency_limits",
        "RetrievedQueue": "detent.sdk.queues",
        "RetryAt": "detent.sdk.catching",
        "RetryWith": "detent.sdk.catching",
        "RunQuery": "detent.sdk.bulk",
        "ScheduleRecord": "detent.protocol.schedules",
        "ScheduleType": "detent.protocol.schedules",
        "ScheduledPayload": "detent.protocol.schedules",
        "SkipRetrying": "detent.sdk.catching",
        "Spent": "detent.sdk.usage",
        "Usage": "detent.sdk.usage",
        "concurrency_limits": "detent.sdk.concurrency_limits",
        "define_config": "detent.sdk.config",
        "heartbeats": "detent.sdk.heartbeats",
        "envvars": "detent.sdk.envvars",
        "metadata": "detent.sdk.metadata",
        "queues": "detent.sdk.queues",
        "retry": "detent.sdk.retrying",
        "schedules": "detent.sdk.schedules",
        "tags": "detent.sdk.tags",
        "usage": "detent.sdk.usage",
    }

    def __getattr__(name: str) -> object:
        """Load what few programs name when it is first asked for: to import detent takes no longer for it."""
        if name not in _LATE:
            raise AttributeError(f"module 'detent' has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(_LATE[name]), name))


__all__ = [
    "INHERIT",
    "AbortTaskRunError",
    "ApiConnectionError",
    "ApiError",
    "AtReset",
    "AuthenticationError",
    "BadRequestError",
    "BareTask",
    "BareTaskRef",
    "BatchHandle",
    "BatchItemError",
    "BatchRecord",
    "BatchResult",
    "BatchStatus",
    "BatchTriggerError",
    "BlockingCallError",
    "BulkKind",
    "BulkRecord",
    "BulkStatus",
    "CancelSignal",
    "ChildOptions",
    "Client",
    "Concurrency",
    "ConcurrencyLimit",
    "Config",
    "ConfigError",
    "ConflictError",
    "Console",
    "Context",
    "Cron",
    "DatabaseError",
    "DatabaseRightsError",
    "DatabaseUnreachableError",
    "DatabaseVersionError",
    "Debounce",
    "DefinitionError",
    "DetentError",
    "DuplicateLimitError",
    "DuplicateTaskIdError",
    "Duration",
    "EmbeddedServerError",
    "EncryptionKeyError",
    "EnvVar",
    "Environment",
    "EnvironmentType",
    "Err",
    "FetchRetry",
    "HookWaitError",
    "IdempotencyKey",
    "InternalServerError",
    "Item",
    "JournalFullError",
    "JsonValue",
    "Local",
    "LocalUnsetError",
    "Machine",
    "MaxDurationExceededError",
    "MetadataTooLargeError",
    "MiddlewareError",
    "MigrationError",
    "Next",
    "NonDeterminismError",
    "NotFoundError",
    "Ok",
    "OutOfMemoryError",
    "OutsideRunError",
    "Page",
    "PayloadError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Queue",
    "RateLimit",
    "RateLimitError",
    "ResetFormat",
    "Result",
    "ResultMisuseError",
    "Retention",
    "Retries",
    "RetrievedLimit",
    "RetrievedQueue",
    "RetrievedToken",
    "Retry",
    "RetryAt",
    "RetryWith",
    "Run",
    "RunCancelledError",
    "RunError",
    "RunFailedError",
    "RunHandle",
    "RunPage",
    "RunQuery",
    "RunStatus",
    "ScheduleError",
    "ScheduleRecord",
    "ScheduleType",
    "ScheduledPayload",
    "SchemaDriftError",
    "SchemaVersionError",
    "SerializationError",
    "SkipRetrying",
    "Spent",
    "StaleRunError",
    "StepError",
    "SubtaskUnwrapError",
    "Task",
    "TaskPayloadParsedError",
    "TaskRef",
    "Token",
    "TokenFailedError",
    "TokenStatus",
    "TooManyTagsError",
    "TriggerOptions",
    "UnprocessableEntityError",
    "Usage",
    "WaitInfo",
    "WaitKind",
    "WaitTimeoutError",
    "batch",
    "concurrency_limit",
    "concurrency_limits",
    "define_config",
    "envvars",
    "heartbeats",
    "idempotency_keys",
    "logger",
    "metadata",
    "queue",
    "queues",
    "retry",
    "runs",
    "schedules",
    "schema_task",
    "step",
    "tags",
    "task",
    "tasks",
    "usage",
    "wait",
]
