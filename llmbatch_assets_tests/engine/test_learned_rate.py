"""Learning from refusals: a limit is found and respected, and refusals at any rate slow nothing down.

Whole runs are simulated on a clock that jumps, with the pacer itself, against servers of many kinds.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from llmbatch_assets.engine.learned_rate import ENOUGH_CALLS, STEP_BACK, UNDERCUT, LearnedRate
from llmbatch_assets.engine.pacing import CallLimits, Pacer
from llmbatch_assets.errors import FailureCause, TransientError
from llmbatch_assets_tests.engine.fakes import run

# Seconds until a server refuses, and the longest time that a call waits before it is repeated.
REFUSAL_SEC = 0.05
MAX_WAIT_SEC = 30.0


@dataclass(frozen=True)
class Refused:
    """A refusal; ``retry_after`` as the server asks, if it does."""

    retry_after: float | None = None


# Whether a call at this time, with this many others in flight, is refused.
Server = Callable[[float, int], Refused | None]


def at_random(share: float, retry_after: float | None = None) -> Server:
    rand = random.Random(1)  # noqa: S311  # a repeatable server
    return lambda _at, _in_flight: Refused(retry_after) if rand.random() < share else None


def sliding_window(calls: int, seconds: float, *, asks: bool = True) -> Server:
    taken: deque[float] = deque()

    def server(at: float, _in_flight: int) -> Refused | None:
        while taken and taken[0] <= at - seconds:
            taken.popleft()
        if len(taken) >= calls:
            return Refused(taken[0] + seconds - at if asks else None)
        taken.append(at)
        return None

    return server


def bucket(capacity: float, per_second: float) -> Server:
    level, filled_at = capacity, 0.0

    def server(at: float, _in_flight: int) -> Refused | None:
        nonlocal level, filled_at
        level, filled_at = min(capacity, level + (at - filled_at) * per_second), at
        if level < 1:
            return Refused()
        level -= 1
        return None

    return server


def at_most_in_flight(calls: int) -> Server:
    return lambda _at, in_flight: Refused() if in_flight >= calls else None


def one_call_before(seconds: float, retry_after: float | None) -> Server:
    numbers = count()
    return lambda at, _in_flight: Refused(retry_after) if at < seconds and next(numbers) else None


def first_then(seconds: float, first: Server, then: Server) -> Server:
    return lambda at, in_flight: (first if at < seconds else then)(at, in_flight)


def either(*servers: Server) -> Server:
    def server(at: float, in_flight: int) -> Refused | None:
        return next((refused for one in servers if (refused := one(at, in_flight))), None)

    return server


@dataclass
class Simulation:
    """Workers that call a server for a number of seconds or items, paced or in a bare loop that retries each call."""

    server: Server
    workers: int
    latency: float
    seconds: float = 1e9
    items: int = 10**9
    told: int = 0
    bare: bool = False
    answered: list[float] = field(default_factory=list)
    refused: int = 0
    in_flight: int = 0

    def start(self) -> Simulation:
        run(self._main)
        return self

    async def _main(self) -> None:
        self._rand = random.Random(7)  # noqa: S311  # repeatable latencies
        self._pacer = Pacer(CallLimits(self.workers, self.told), asyncio.Event())
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()
        workers = [asyncio.ensure_future(self._work()) for _ in range(self.workers)]
        done, unfinished = await asyncio.wait(workers, timeout=self.seconds)
        for worker in unfinished:
            worker.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await asyncio.gather(*done)

    async def _work(self) -> None:
        while self.items > 0:
            self.items -= 1
            for number in count():
                try:
                    await self._call()
                    break
                except TransientError as error:
                    backoff = min(0.5 * 2**number, MAX_WAIT_SEC) + self._rand.uniform(0, 0.5)
                    await asyncio.sleep(backoff if error.retry_after is None else error.retry_after)
            self.answered.append(self._clock() - self._started)

    async def _call(self) -> None:
        if self.bare:
            await self._ask()
            return
        async with self._pacer.permit(1):
            await self._ask()

    async def _ask(self) -> None:
        if refused := self.server(self._clock() - self._started, self.in_flight):
            await asyncio.sleep(REFUSAL_SEC)
            self.refused += 1
            raise TransientError(FailureCause.RATE_LIMITED, "too many requests", refused.retry_after)
        self.in_flight += 1
        await asyncio.sleep(self.latency * self._rand.uniform(0.7, 1.3))
        self.in_flight -= 1

    @property
    def share_refused(self) -> float:
        return self.refused / (self.refused + len(self.answered))


# Refusals that come at any rate.


# Each share meets each wait and each number of workers once.
@pytest.mark.parametrize(
    ("share", "retry_after", "workers", "latency", "seconds"),
    [
        (0.03, None, 8, 1.3, 300),
        (0.03, 1.0, 16, 0.5, 200),
        (0.03, 5.0, 64, 2.0, 200),
        (0.07, None, 16, 0.5, 200),
        (0.07, 1.0, 64, 2.0, 200),
        (0.07, 5.0, 8, 1.3, 300),
        (0.15, None, 64, 2.0, 200),
        (0.15, 1.0, 8, 1.3, 300),
        (0.15, 5.0, 16, 0.5, 200),
    ],
)
def test_random_refusals_leave_most_of_what_a_bare_loop_gets(
    share: float, retry_after: float | None, workers: int, latency: float, seconds: float
) -> None:
    # 7 % of calls refused at random: 5.8 calls/s fell to 0.25 within five minutes.
    paced = Simulation(at_random(share, retry_after), workers, latency, seconds).start()
    bare = Simulation(at_random(share, retry_after), workers, latency, seconds, bare=True).start()
    assert len(paced.answered) >= 0.8 * len(bare.answered)


def test_random_refusals_for_a_while_are_forgotten_and_a_limit_is_found_afterwards() -> None:
    server = first_then(100, at_random(0.07), bucket(10, 10))
    paced = Simulation(server, 16, 0.5, 400).start()
    answered = [at for at in paced.answered if at > 200]
    assert len(answered) >= 0.9 * 10 * 200
    assert paced.share_refused < 0.07


def test_a_limit_is_found_among_random_refusals() -> None:
    paced = Simulation(either(at_random(0.07), bucket(10, 10)), 16, 0.5, 300).start()
    assert len(paced.answered) >= 0.85 * 10 * 300
    assert paced.share_refused < 0.25


# A floor.


@pytest.mark.parametrize("retry_after", [30.0, None])
@pytest.mark.parametrize(("workers", "items", "latency"), [(16, 100, 0.5), (64, 1000, 1.0), (8, 100, 2.0)])
def test_refused_first_calls_cost_little_more_than_their_wait(
    workers: int, items: int, latency: float, retry_after: float | None
) -> None:
    # 15 of 16 first calls refused with Retry-After: 30; 100 rows took 1,081 s instead of 31 s.
    paced = Simulation(one_call_before(30, retry_after), workers, latency, items=items).start()
    assert paced.answered[-1] <= 2 * (30 + items * latency / workers)


@pytest.mark.parametrize("workers", [16, 64])
def test_a_server_that_was_down_for_a_while_is_soon_used_fully_again(workers: int) -> None:
    server = first_then(60, at_random(0), first_then(90, at_random(1, 10), at_random(0)))
    paced = Simulation(server, workers, 0.5, 180).start()
    assert len(paced.answered) >= 0.9 * 150 * workers / 0.5


# Limits.

LIMITS: dict[str, Callable[[], Server]] = {
    "sliding minute": lambda: sliding_window(600, 60),
    "sliding minute, no Retry-After": lambda: sliding_window(600, 60, asks=False),
    "sliding six seconds": lambda: sliding_window(60, 6),
    "bucket of a second": lambda: bucket(10, 10),
    "bucket of a minute": lambda: bucket(600, 10),
}


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize(("workers", "latency"), [(16, 0.3), (64, 1.0)])
def test_a_configured_limit_is_respected(kind: str, workers: int, latency: float) -> None:
    paced = Simulation(LIMITS[kind](), workers, latency, 200, told=600).start()
    assert len(paced.answered) >= 0.93 * 10 * 200
    assert paced.share_refused < 0.02


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize(("workers", "latency"), [(16, 0.3), (64, 1.0)])
def test_a_limit_is_found(kind: str, workers: int, latency: float) -> None:
    paced = Simulation(LIMITS[kind](), workers, latency, 300).start()
    assert len(paced.answered) >= 0.8 * 10 * 300
    # Calls beyond the limit that are in flight when it is reached for the first time are all refused.
    assert paced.refused - workers < 0.04 * len(paced.answered)


def test_a_limit_of_calls_in_flight_is_used_and_rarely_exceeded() -> None:
    paced = Simulation(at_most_in_flight(10), 64, 1.0, 300).start()
    assert len(paced.answered) >= 0.65 * 10 * 300
    assert paced.share_refused < 0.08


@pytest.mark.parametrize(
    ("before", "after", "least", "refused"),
    [(20, 4, 0.9, 0.04), (4, 20, 0.75, 0.04), (20, 2, 0.85, 0.08)],
    ids=["fall", "rise", "deep fall"],
)
def test_a_limit_that_changes_is_found_again(before: int, after: int, least: float, refused: float) -> None:
    server = first_then(100, sliding_window(before * 6, 6), sliding_window(after * 6, 6))
    paced = Simulation(server, 16, 0.3, 300).start()
    assert len(paced.answered) >= least * (before * 100 + after * 200)
    assert paced.share_refused < refused


# The rate by itself.


def calls(learned: LearnedRate, begun: int, refused: int, now: float) -> None:
    """Calls that begin one after another, the last ones refused."""
    for _ in range(begun):
        learned.record_call(now)
    for _ in range(refused):
        learned.record_refusal(now, learned.period)


def test_a_cool_down_tells_the_rate_and_its_own_seconds_count() -> None:
    learned = LearnedRate()
    calls(learned, 603, 3, 0.0)
    assert learned.measure(60.0, after_cool_down=True)
    assert learned.per_second == pytest.approx(10 * UNDERCUT)


def test_a_server_that_goes_on_refusing_is_still_measured_by_the_calls_before() -> None:
    learned = LearnedRate()
    calls(learned, 603, 3, 0.0)
    for now in (10.0, 30.0, 60.0):
        learned.measure(now, after_cool_down=True)
        calls(learned, 1, 1, now)
    assert learned.per_second == pytest.approx(10 * UNDERCUT)


def test_a_few_calls_say_nothing_until_it_happens_a_second_time() -> None:
    learned = LearnedRate()
    calls(learned, 6, 3, 0.0)
    assert not learned.measure(60.0, after_cool_down=True)
    assert learned.per_second == float("inf")
    calls(learned, 6, 3, 60.0)
    assert learned.measure(120.0, after_cool_down=True)
    assert learned.per_second == pytest.approx(3 / 60 * UNDERCUT)


def test_a_refusal_above_the_known_rate_is_a_step_back_and_one_at_the_known_rate_is_none() -> None:
    learned = LearnedRate()
    calls(learned, 603, 3, 0.0)
    learned.measure(60.0, after_cool_down=True)
    calls(learned, 1, 0, 60.0)
    known = learned.per_second
    calls(learned, 1, 1, 60.1)
    assert learned.per_second == known
    for second in range(30):
        for _ in range(10):
            learned.record_call(61.0 + second)
            learned.record_answer(61.0 + second, is_new=True)
    raised = learned.per_second
    assert raised > 1.5 * known
    calls(learned, 1, 1, 92.0)
    assert learned.per_second == pytest.approx(STEP_BACK * raised)


def test_the_configured_rate_is_the_upper_limit() -> None:
    learned = LearnedRate(10.0)
    for second in range(1000):
        learned.record_call(float(second))
        learned.record_answer(float(second), is_new=True)
    assert learned.per_second == pytest.approx(10 / UNDERCUT)


def test_as_many_refusals_at_a_lower_rate_do_not_depend_on_it() -> None:
    learned = LearnedRate(10.0)
    now, rates = 0.0, []
    for _ in range(3 * ENOUGH_CALLS):
        for number in range(ENOUGH_CALLS):
            now += 1 / learned.per_second
            learned.record_call(now)
            if number % 8 == 0 and learned.record_refusal(now, learned.period):
                learned.measure(now, after_cool_down=False)
                rates.append(learned.per_second)
        if learned.base_share:
            break
    assert 0.1 < learned.base_share < 0.2
    assert rates[0] < 10
    assert rates[-1] == pytest.approx(10 / UNDERCUT)
    # More of them in a row are needed to close the gate.
    assert learned.is_coincidence(3)
    assert not learned.is_coincidence(8)
