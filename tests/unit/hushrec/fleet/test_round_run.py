"""A round goes through its messages in order, spends before it sends, and leaves as the conditions say."""

from collections.abc import Callable

import numpy as np
import pytest
from hushrec.fleet.gate import CONDITIONS, NO_CONSENT
from hushrec.fleet.pacing import Pace
from hushrec.fleet.round_run import NotYet, RoundRun, Stage
from hushrec_privacy.errors import BudgetError, FleetError, LedgerError, SecAggError
from numpy.typing import NDArray

VECTOR = np.arange(4, dtype=np.int64)
NAMES = {1: "advertise", 2: "choose", 3: "share", 4: "mask", 5: "agree", 6: "reveal"}


class Story:
    """Wire, device and record of one round, and all that happened in it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.faults: dict[str, list[Exception]] = {}  # raised by the event of this name, one a time
        self.not_yet = 0
        self.now = 1_000.0
        self.stop: str | None = None

    def happened(self, event: str) -> None:
        self.events.append(event)
        if self.faults.get(event):
            raise self.faults[event].pop(0)

    def run(self, work: "Callable[[Callable[[], bool]], NDArray[np.int64] | None] | None" = None) -> RoundRun:
        return RoundRun(
            self,
            self,
            work=work or self.work,
            spend=lambda: self.happened("spend"),
            pace=Pace(600),
            clock=lambda: self.now,
        )

    def play(self, run: RoundRun, steps: int = 200) -> list[float]:
        """Step until the round is over."""
        waits = []
        for _ in range(steps):
            waits.append(run.step(lambda: self.stop))
            self.now += waits[-1]
            if run.outcome is not None:
                return waits
        raise AssertionError(f"not over after {steps} steps: {self.events[-10:]}")

    def work(self, stop: Callable[[], bool]) -> NDArray[np.int64] | None:
        self.happened("work")
        return None if stop() else VECTOR

    # The wire.

    def upload(self, phase: int, message: bytes) -> None:
        self.happened(f"send {message.decode()}")
        assert message.decode() == NAMES[phase]

    def reply(self, phase: int) -> bytes | NotYet:
        self.happened(f"ask {NAMES[phase]}")
        if self.not_yet:
            self.not_yet -= 1
            return NotYet()
        return f"reply {phase}".encode()

    # The device.

    def advertise(self) -> bytes:
        self.happened("make advertise")
        return b"advertise"

    def _made(self, name: str, phase: int, reply: bytes) -> bytes:
        assert reply == f"reply {phase - 1}".encode()
        self.happened(f"make {name}")
        return name.encode()

    def choose(self, roster: bytes) -> bytes:
        return self._made("choose", 2, roster)

    def share(self, neighbours: bytes) -> bytes:
        return self._made("share", 3, neighbours)

    def mask(self, shares: bytes, vector: NDArray[np.int64]) -> bytes:
        np.testing.assert_array_equal(vector, VECTOR)
        return self._made("mask", 4, shares)

    def agree(self, survivors: bytes) -> bytes:
        return self._made("agree", 5, survivors)

    def reveal(self, agreement: bytes) -> bytes:
        return self._made("reveal", 6, agreement)


@pytest.fixture
def story() -> Story:
    return Story()


WHOLE = [
    *("make advertise", "send advertise", "ask advertise"),
    *("make choose", "send choose", "ask choose"),
    *("make share", "send share", "work", "ask share"),
    *("make mask", "spend", "send mask", "ask mask"),
    *("make agree", "send agree", "ask agree"),
    *("make reveal", "send reveal"),
]


def test_a_round_is_six_messages_in_order_and_spends_between_making_and_sending_the_masked_one(story: Story) -> None:
    run = story.run()
    story.play(run)
    assert story.events == WHOLE
    assert run.outcome is not None
    assert (run.outcome.reason, run.outcome.spent) == ("done", True)
    assert run.stage is Stage.OVER
    assert run.step(lambda: None) == 0
    assert story.events == WHOLE, "nothing happens after the end"


def test_a_step_does_one_thing(story: Story) -> None:
    run = story.run()
    for _ in range(100):
        before = len(story.events)
        run.step(lambda: None)
        done = [event for event in story.events[before:] if event.split()[0] in ("send", "ask", "work")]
        assert len(done) <= 1
        if run.outcome:
            break


def test_a_phase_that_is_open_is_asked_for_again_with_growing_waits(story: Story) -> None:
    story.not_yet = 6
    waits = story.play(story.run())
    asked = [wait for wait in waits if 0 < wait < Pace(600).work_s / 2]
    least, most = Pace(600).poll_s
    assert len(asked) == 6
    assert all(least <= wait <= least + most for wait in asked)


@pytest.mark.parametrize("took_s", [0.0, 0.25, 35.9])
def test_nothing_is_asked_for_a_fixed_time_after_the_shares_however_long_the_work_took(
    story: Story, took_s: float
) -> None:
    asked: list[float] = []

    def work(stop: Callable[[], bool]) -> NDArray[np.int64] | None:
        story.now += took_s
        return story.work(stop)

    run = story.run(work)
    began = story.now
    while run.outcome is None:
        before = len(story.events)
        story.now += min(run.step(lambda: None), 5.0)  # whoever steps too early is told to wait on
        asked += [story.now] * ("ask share" in story.events[before:])
    assert asked == [pytest.approx(began + Pace(600).work_s)]
    assert run.outcome.reason == "done"


def test_work_that_takes_longer_than_that_time_is_sent_at_once(story: Story) -> None:
    def work(stop: Callable[[], bool]) -> NDArray[np.int64] | None:
        story.now += 50
        return story.work(stop)

    run = story.run(work)
    assert not any(story.play(run))


@pytest.mark.parametrize("phase", range(1, 7))
def test_the_same_message_is_sent_again_after_a_failure_on_the_way(story: Story, phase: int) -> None:
    event = f"send {NAMES[phase]}"
    story.faults[event] = [FleetError("", reason="unreachable", retry_after_s=0), FleetError("", retry_after_s=3)]
    run = story.run()
    story.play(run)
    assert story.events.count(event) == 3
    assert story.events.count(f"make {NAMES[phase]}") == 1
    assert story.events.count("spend") == 1
    assert run.outcome is not None
    assert run.outcome.reason == "done"


@pytest.mark.parametrize("event", [event for event in WHOLE if event.split()[0] in ("send", "ask")])
def test_a_refusal_for_good_ends_the_round(story: Story, event: str) -> None:
    story.faults[event] = [FleetError("the round is over", reason="round-aborted")]
    run = story.run()
    story.play(run)
    assert story.events[-1] == event
    assert run.outcome is not None
    assert run.outcome.reason == "round-aborted"
    assert run.outcome.spent == (WHOLE.index(event) > WHOLE.index("spend"))


@pytest.mark.parametrize("event", [event for event in WHOLE if event.startswith("make")])
def test_a_lie_of_the_server_ends_the_round_before_anything_is_sent(story: Story, event: str) -> None:
    story.faults[event] = [SecAggError("a share is not of this roster")]
    run = story.run()
    story.play(run)
    assert story.events[-1] == event
    assert run.outcome is not None
    assert run.outcome.reason == "secure-aggregation"
    assert run.outcome.spent == (WHOLE.index(event) > WHOLE.index("spend"))


@pytest.mark.parametrize("error", [BudgetError("spent already"), LedgerError("disk full")])
def test_what_cannot_be_spent_is_not_sent(story: Story, error: Exception) -> None:
    story.faults["spend"] = [error]
    run = story.run()
    if isinstance(error, LedgerError):
        with pytest.raises(LedgerError):
            story.play(run)
    else:
        story.play(run)
    assert story.events[-1] == "spend"
    assert run.outcome is not None
    assert not run.outcome.spent


@pytest.mark.parametrize("event", [event for event in WHOLE if event.split()[0] in ("send", "ask")])
def test_conditions_that_end_before_masking_end_the_round_and_after_it_only_delay_it(story: Story, event: str) -> None:
    story.faults[event] = [FleetError("", reason=CONDITIONS)] * 3
    run = story.run()
    story.play(run)
    assert run.outcome is not None
    before = WHOLE.index(event) < WHOLE.index("spend")
    assert run.outcome.reason == (CONDITIONS if before else "done")
    assert run.outcome.spent != before


@pytest.mark.parametrize("event", [event for event in WHOLE if event.split()[0] in ("send", "ask")])
def test_consent_that_is_withdrawn_ends_the_round_wherever_it_is(story: Story, event: str) -> None:
    story.faults[event] = [FleetError("", reason=NO_CONSENT)]
    run = story.run()
    story.play(run)
    assert run.outcome is not None
    assert run.outcome.reason == NO_CONSENT
    assert story.events[-1] == event


def test_training_stops_within_a_batch_and_the_round_is_left(story: Story) -> None:
    batches = 0

    def training(stop: Callable[[], bool]) -> NDArray[np.int64] | None:
        nonlocal batches
        for _ in range(10):
            if stop():
                return None
            batches += 1
            if batches == 4:
                story.stop = CONDITIONS
        return VECTOR

    run = story.run(training)
    story.play(run)
    assert batches == 4
    assert run.outcome is not None
    assert (run.outcome.reason, run.outcome.spent) == (CONDITIONS, False)


def test_nothing_is_spent_once_the_device_should_not_go_on(story: Story) -> None:
    run = story.run()
    while "make mask" not in story.events:
        story.stop = NO_CONSENT if "ask share" in story.events else None
        story.now += run.step(lambda: story.stop)
    assert run.outcome is not None
    assert (run.outcome.reason, run.outcome.spent) == (NO_CONSENT, False)
    assert "spend" not in story.events


def test_training_that_takes_longer_than_the_round_ends_with_it(story: Story) -> None:
    def endless(stop: Callable[[], bool]) -> NDArray[np.int64] | None:
        while not stop():
            story.now += 100
        return None

    run = story.run(endless)
    story.play(run)
    assert run.outcome is not None
    assert run.outcome.reason == "round-over"


def test_conditions_that_never_come_back_end_with_the_round(story: Story) -> None:
    story.faults["send agree"] = [FleetError("", reason=CONDITIONS)] * 1_000
    run = story.run()
    story.play(run, steps=1_000)
    assert run.outcome is not None
    assert (run.outcome.reason, run.outcome.spent) == ("round-over", True)
    assert story.now <= 1_000 + Pace(600).patience_s + sum(Pace(600).poll_s)


def test_a_server_that_never_closes_a_phase_is_left_in_time(story: Story) -> None:
    story.not_yet = 10**9
    run = story.run()
    story.play(run, steps=1_000)
    assert run.outcome is not None
    assert (run.outcome.reason, run.outcome.spent) == ("round-over", False)


def test_a_server_that_says_zero_for_ever_does_not_make_a_device_hammer_it(story: Story) -> None:
    story.faults["send choose"] = [FleetError("", reason="busy", retry_after_s=0)] * 10_000
    run = story.run()
    story.play(run, steps=10_000)
    assert story.events.count("send choose") < 200


def test_leaving_from_this_side_ends_it_and_a_second_time_changes_nothing(story: Story) -> None:
    run = story.run()
    run.step(lambda: None)
    run.leave("stopped", "the app stops")
    run.leave("other", "")
    assert run.outcome is not None
    assert run.outcome.reason == "stopped"
    assert run.step(lambda: None) == 0
