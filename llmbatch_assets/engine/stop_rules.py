"""When a run has failed so much that going on would only cost."""

from __future__ import annotations

from dataclasses import dataclass

from llmbatch_assets.domain.text import counted
from llmbatch_assets.engine.tally import Tally
from llmbatch_assets.errors import RunPermanentError

# So many items must have ended before their share says anything.
FEWEST_FOR_A_RATE = 20
HOPELESS_AFTER = 10


@dataclass(frozen=True)
class StopRules:
    """Limits of a run's failures; 0 is no limit. A batch whose first items all fail alike for good stops by itself."""

    max_failures: int = 0
    max_failure_rate: float = 0.0

    def broken_by(self, tally: Tally) -> RunPermanentError | None:
        """The error that ends the run, if it has come so far."""
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(tally.causes.items()))
        if tally.accepted == 0 and tally.failed_for_good >= HOPELESS_AFTER and len(tally.causes) == 1:
            return RunPermanentError(
                "hopeless",
                f"the first {tally.failed} items all failed for good in the same way ({causes}); "
                "look at one of the failure files, mend the prompt or the settings, and run again with --retry-failed",
            )
        if self.max_failures and tally.failed >= self.max_failures:
            return RunPermanentError(
                "too_many_failures",
                f"{counted(tally.failed, 'item')} failed ({causes}), as many as llm.max_failures allows",
            )
        rate = tally.failed / tally.done if tally.done else 0.0
        if self.max_failure_rate and tally.done >= FEWEST_FOR_A_RATE and rate > self.max_failure_rate:
            return RunPermanentError(
                "too_many_failures",
                f"{tally.failed} of {counted(tally.done, 'item')} failed ({causes}), more than llm.max_failure_rate allows",
            )
        return None
