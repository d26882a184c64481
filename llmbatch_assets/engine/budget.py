"""Money that a run may spend: set aside before a call, and settled after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llmbatch_assets.domain.cost import added, shown
from llmbatch_assets.errors import RunPermanentError


@dataclass
class Bill:
    """A call's cost: at first what it may cost at most, at its end what it did."""

    cost: float


class Budget:
    """Lets a call begin where the sum of what was spent, of what calls in flight may cost and of its own cost is within.

    Where only the calls in flight stand in the way it waits for them: they may turn out to be cheaper.
    """

    def __init__(self, max_cost_usd: float, stopped: asyncio.Event) -> None:
        self._max = max_cost_usd
        self._stopped = stopped
        self._settled = asyncio.Event()
        self._spent = 0.0
        self._set_aside = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit to keep."""
        return self._max > 0

    @asynccontextmanager
    async def bill(self, most: float | None) -> AsyncIterator[Bill]:
        """Set aside what a call may cost; what its bill says at the end is spent.

        Raises ``RunPermanentError`` where that is more than is left.
        """
        bill = Bill(most or 0.0)
        if self._max:
            await self._fit(bill.cost)
        aside = bill.cost
        self._set_aside += aside
        try:
            yield bill
        finally:
            self._set_aside -= aside
            self._spent = added(self._spent, bill.cost) or 0.0
            self._settled.set()
            self._settled = asyncio.Event()

    async def _fit(self, cost: float) -> None:
        while not self._stopped.is_set() and self._exceeded_by(self._set_aside + cost):
            if self._exceeded_by(cost):
                raise RunPermanentError(
                    "budget",
                    f"{shown(self._spent)} were spent, and the next call may cost {shown(cost)}: more than "
                    f"budget.max_cost_usd ({shown(self._max)}) allows for a run; raise it, or run again to go on",
                )
            await self._next_settlement()

    def _exceeded_by(self, cost: float) -> bool:
        return (added(self._spent, cost) or 0.0) > self._max

    async def _next_settlement(self) -> None:
        ends = [asyncio.ensure_future(event.wait()) for event in (self._settled, self._stopped)]
        with contextlib.ExitStack() as stack:
            for end in ends:
                stack.callback(end.cancel)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
