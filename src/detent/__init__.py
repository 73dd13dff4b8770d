"""Durable background tasks for Python on PostgreSQL: retries, waits of months, fan-out, and no lost runs."""

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
    InternalServerError,
    JournalFullError,
    MaxDurationExceededError,
    MetadataTooLargeError,
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
from detent.protocol.batches import BatchItemError, BatchRecord
from detent.protocol.bulk import BulkKind, BulkRecord, BulkStatus
from detent.protocol.codec import JsonValue
from detent.protocol.cron import Cron
from detent.protocol.retention import Retention
from detent.protocol.retry import Retry
from detent.protocol.run_error import RunError
from detent.protocol.schedules import ScheduledPayload, ScheduleRecord, ScheduleType
from detent.protocol.status import BatchStatus, RunStatus, TokenStatus
from detent.sdk.batch import batch
from detent.sdk.bulk import RunQuery
from detent.sdk.client import Client
from detent.sdk.concurrency import Concurrency, ConcurrencyLimit, RateLimit, concurrency_limit
from detent.sdk.concurrency_limits import RetrievedLimit, concurrency_limits
from detent.sdk.config import Config, Retries, define_config
from detent.sdk.context import CancelSignal, Context
from detent.sdk.debounce import Debounce
from detent.sdk.fetching import AtReset, FetchRetry, ResetFormat
from detent.sdk.handles import BatchHandle, BatchResult, RunHandle
from detent.sdk.idempotency import IdempotencyKey
from detent.sdk.idempotency_keys import idempotency_keys
from detent.sdk.inheritance import INHERIT
from detent.sdk.logger import logger
from detent.sdk.metadata import metadata
from detent.sdk.options import ChildOptions, TriggerOptions
from detent.sdk.page import Page
from detent.sdk.queue import Queue, queue
from detent.sdk.queues import RetrievedQueue, queues
from detent.sdk.ref import BareTaskRef, TaskRef
from detent.sdk.result import Err, Ok, Result
from detent.sdk.retrying import retry
from detent.sdk.runs import Run, RunPage, runs
from detent.sdk.schedules import schedules
from detent.sdk.step import step
from detent.sdk.tags import tags
from detent.sdk.task import BareTask, Task, schema_task, task
from detent.sdk.tasks import tasks
from detent.sdk.token import RetrievedToken, Token
from detent.sdk.triggering import Item
from detent.sdk.wait import wait

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
    "Err",
    "FetchRetry",
    "IdempotencyKey",
    "InternalServerError",
    "Item",
    "JournalFullError",
    "JsonValue",
    "MaxDurationExceededError",
    "MetadataTooLargeError",
    "MigrationError",
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
    "Run",
    "RunCancelledError",
    "RunError",
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
    "WaitTimeoutError",
    "batch",
    "concurrency_limit",
    "concurrency_limits",
    "define_config",
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
    "wait",
]
