"""All errors that the package raises on purpose, and their causes.

    LlmBatchError
    ├── InputError                the user's files are wrong; nothing ran          (exit code 2)
    │   ├── ConfigError           a configs/*.yaml file
    │   │   └── SharedFilesError  two batches would write the same files
    │   ├── PromptError           a prompts/*.yaml file
    │   ├── TableError            the input table
    │   ├── GroupingColumnError   the grouping column is not in the table (also a ValueError)
    │   ├── SchemaError           the schema module or its text
    │   └── MissingArtifactError  an input of an asset does not exist yet
    ├── ArtifactError             a file written by this package can no longer be read
    ├── SchemaGenerationError     no answer of the model was a valid schema module
    ├── LocalModelError           the embedded model cannot be fetched or started
    ├── BusyError                 a run is using the files that a command would change
    ├── RunInterruptedError       a signal ended the run
    ├── AnswerError               the model's answer is unusable; the model gets feedback and another attempt
    └── ProviderError             a call returned no answer
        ├── TransientError        a later retry can help
        ├── FormatRefusedError    an immediate retry can help: the client has changed the form of the request
        ├── ItemPermanentError    this item will never be answered; others may be
        └── RunPermanentError     no call can succeed until the user changes something

Messages are for users: what is wrong, where, and what to do.
"""

from __future__ import annotations

from enum import StrEnum


class FailureCause(StrEnum):
    """Why an attempt failed. The values are stored in failure files, the call log and reports."""

    # The answer is unusable.
    EMPTY_ANSWER = "empty_answer"
    NOT_JSON = "not_json"
    SCHEMA_MISMATCH = "schema_mismatch"
    WRAPPED = "wrapped"
    CUT_OFF = "cut_off"
    NO_CODE = "no_code"
    JUDGE_REJECTED = "judge_rejected"
    JUDGE_UNREADABLE = "judge_unreadable"
    # The call failed, but a retry can help.
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    BROKEN_BODY = "broken_body"
    TOO_LARGE = "too_large"
    STRUCTURED_OUTPUT = "structured_output"
    # The provider will not answer this item.
    REFUSED = "refused"
    CONTENT_FILTER = "content_filter"
    CONTEXT_TOO_LONG = "context_too_long"
    BAD_REQUEST = "bad_request"
    # The failure file cannot be read.
    UNREADABLE_FAILURE = "unreadable_failure"


class StopCause(StrEnum):
    """Why a run stopped before its end. The values are stored in manifests, the run history and the call log."""

    # The provider cannot answer any call.
    NO_KEY = "no_key"
    BAD_KEY = "bad_key"
    KEY_REFUSED = "key_refused"
    NO_QUOTA = "no_quota"
    UNKNOWN_MODEL = "unknown_model"
    BAD_SETTING = "bad_setting"
    PROXY_REFUSED = "proxy_refused"
    REDIRECTED = "redirected"
    NOTHING_LISTENING = "nothing_listening"
    # Several items in a row failed, and no call was answered in between.
    SAME_REFUSAL = "same_refusal"
    GAVE_UP = "gave_up"
    SERVER_DOWN = "server_down"
    TOO_SLOW = "too_slow"
    UNUSABLE_REPLIES = "unusable_replies"
    # Results cannot be stored.
    DISK = "disk"
    DAGSTER_STORAGE = "dagster_storage"
    OPEN_FILES = "open_files"
    # The run reached one of its own limits.
    BUDGET = "budget"
    TOO_MANY_FAILURES = "too_many_failures"
    HOPELESS = "hopeless"
    # Another call or a signal stopped the run.
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


class LlmBatchError(Exception):
    """Base class of all errors that are raised on purpose."""


class InputError(LlmBatchError):
    """A file of the user is missing or wrong."""


class ConfigError(InputError):
    """A configuration file cannot be used. The message lists every mistake in it."""


class SharedFilesError(ConfigError):
    """Two configuration files name the same path for something that runs write."""


class PromptError(InputError, KeyError):
    """A prompt file cannot be used. Also a ``KeyError``, as for unknown placeholders."""

    # KeyError would show the repr of its argument.
    __str__ = Exception.__str__


class TableError(InputError):
    """The input table cannot be read as a table."""


class GroupingColumnError(InputError, ValueError):
    """The configured grouping column is not in the table."""


class SchemaError(InputError):
    """The schema module is missing, or contains code that is not allowed in a schema."""


class MissingArtifactError(InputError):
    """An input artifact of this step does not exist yet."""


class ArtifactError(LlmBatchError):
    """An artifact on disk does not have the content that was written."""


class SchemaGenerationError(LlmBatchError):
    """None of the model's answers was a valid schema module. An existing module is kept."""


class LocalModelError(LlmBatchError):
    """The embedded model cannot be fetched or its server cannot be started."""


class BusyError(LlmBatchError):
    """A run is working on the batch, and the requested change would interfere."""


class RunInterruptedError(LlmBatchError):
    """The process received the signal ``signal_number``."""

    cause = StopCause.INTERRUPTED

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted; accepted outputs are kept, and the next run continues from there")
        self.signal_number = signal_number


class AnswerError(LlmBatchError):
    """An unusable answer. The message is the feedback that the model gets, ``detail`` a shorter one for logs."""

    def __init__(self, cause: FailureCause, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.detail = detail


class ProviderError(LlmBatchError):
    """A call that returned no answer.

    ``request_id`` is the provider's id of the call and ``status`` its HTTP status, where known. ``usage`` is the
    ``TokenUsage`` that the provider reported although it gave no answer. ``suspected_outage`` is a ``SuspectedOutage`` if
    every other call may fail in the same way.
    """

    request_id: str = ""
    status: int | None = None
    usage: object = None
    suspected_outage: object = None

    def __init__(self, cause: FailureCause | StopCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class TransientError(ProviderError):
    """A later retry can help, after ``retry_after`` seconds if the server gave a time."""

    def __init__(self, cause: FailureCause, message: str, retry_after: float | None = None) -> None:
        super().__init__(cause, message)
        self.retry_after = retry_after


class FormatRefusedError(ProviderError):
    """The server rejected the form of the request. The client has adapted, so retry at once."""


class ItemPermanentError(ProviderError):
    """The provider will not answer this item, because it is refused, filtered or too long."""


class RunPermanentError(ProviderError):
    """The provider will not answer any call, because of a wrong key, an unknown model, no quota or no server."""

    def __init__(self, cause: StopCause, message: str) -> None:
        super().__init__(cause, message)
