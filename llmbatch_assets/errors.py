"""Everything that can go wrong, as one tree.

    LlmBatchError
    ├── InputError                the user's files are wrong; nothing was run      (exit code 2)
    │   ├── ConfigError           a configs/*.yaml file
    │   ├── PromptError           a prompts/*.yaml file
    │   ├── TableError            the input table
    │   ├── GroupingColumnError   the grouping column is not in the table (also a ValueError)
    │   ├── SchemaError           the schema module or its text
    │   └── MissingArtifactError  an asset's input has not been made yet
    ├── ArtifactError             a file that we wrote can no longer be read
    ├── SchemaGenerationError     no answer of the model was a schema module
    ├── LocalModelError           the embedded model cannot be had or started
    ├── BusyError                 a run is at work on what was to be changed
    ├── RunInterruptedError       a signal ended the run
    ├── AnswerError               the model's answer cannot be used; it is told why and asked again
    └── ProviderError             a call gave no answer
        ├── TransientError        trying again later can help
        ├── AskOtherwiseError     trying again at once can help: the client now asks in another way
        ├── ItemPermanentError    this item will never be answered; the others may be
        └── RunPermanentError     no call can succeed until the user changes something

Messages are for users: what is wrong, where, and what to do.
"""

from __future__ import annotations


class LlmBatchError(Exception):
    """Root of all errors that are raised on purpose."""


class InputError(LlmBatchError):
    """A file of the user's is missing or wrong."""


class ConfigError(InputError):
    """A configuration file cannot be used; the message lists every mistake in it."""


class PromptError(InputError, KeyError):
    """A prompt file cannot be used. Also a ``KeyError``, which is what unknown placeholders are."""

    # KeyError would show the repr of its argument.
    __str__ = Exception.__str__


class TableError(InputError):
    """The input table cannot be read as a table."""


class GroupingColumnError(InputError, ValueError):
    """The table has no column of the name that the configuration groups by."""


class SchemaError(InputError):
    """The schema module is missing, or holds something that a schema does not need."""


class MissingArtifactError(InputError):
    """An artifact that this step starts from has not been made yet."""


class ArtifactError(LlmBatchError):
    """An artifact on disk is not what was once written there."""


class SchemaGenerationError(LlmBatchError):
    """The model was asked for a schema module, and none of its answers is one. An existing module stays in place."""


class LocalModelError(LlmBatchError):
    """The embedded model cannot be fetched or its server cannot be started."""


class BusyError(LlmBatchError):
    """A run is working on the batch, and what was asked for would get in its way."""


class RunInterruptedError(LlmBatchError):
    """The process was told to end; ``signal_number`` says how. ``cause`` is a short code, as other ends have one."""

    cause = "interrupted"

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted; what was accepted is kept, and the next run goes on from there")
        self.signal_number = signal_number


class AnswerError(LlmBatchError):
    """An answer that cannot be used.

    ``cause`` is a short code (``not_json``, ``schema_mismatch``, ``cut_off``, ``judge_rejected``) for counting; the
    message is the feedback that the model is shown.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class ProviderError(LlmBatchError):
    """A call that gave no answer; ``cause`` is a short code for counting.

    ``request_id`` is the provider's own name for the call, where it told one; ``status`` that of its HTTP response,
    where there was one; ``usage`` the ``TokenUsage`` that it told although it gave no answer.
    """

    request_id: str = ""
    status: int | None = None
    usage: object = None

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class TransientError(ProviderError):
    """Worth trying again, not before ``retry_after`` seconds where the server named a time."""

    def __init__(self, cause: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(cause, message)
        self.retry_after = retry_after


class AskOtherwiseError(ProviderError):
    """Refused for the way in which it was asked; the client has taken note, so ask again at once."""


class ItemPermanentError(ProviderError):
    """The provider will not answer this item: refused, filtered, too long."""


class RunPermanentError(ProviderError):
    """The provider will answer nothing: wrong key, unknown model, no quota, nothing listening."""
