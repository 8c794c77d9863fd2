"""Whatever a shopper does, and whatever happens to device and shop: no event is asked for that was ever trained on."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hushrec import federated_counts
from hushrec import profile as profile_module
from hushrec.bundle import Bundle
from hushrec.federated_counts import own_segments
from hushrec.held_out import HeldEvent, training_events
from hushrec.profile import Profile
from hushrec_privacy.plans.schema import Segment, Vector
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fleet_plans import a_fleet_plan
from tests.tiny_bundle import write_tiny_bundle

PLAN = a_fleet_plan(vector=Vector("counts", (Segment("evaluation", 3, "1.5", "how well the model does"),)))
ITEMS = 5
LATEST_US = 9

Key = tuple[str, int]
"""Item and time: no two events of these tests have the same."""


class Did(NamedTuple):
    """An event, at any time: also one that is older than others, or to come."""

    item: int
    at_us: int


class Trained(NamedTuple):
    """A round of training with one of the bundles."""

    bundle: int
    now_us: int


class Asked(NamedTuple):
    """A round that evaluates one of them."""

    bundle: int
    now_us: int


any_time = st.integers(0, LATEST_US)
any_story = st.lists(
    st.one_of(
        st.builds(Did, st.integers(1, ITEMS), any_time),
        st.builds(Trained, st.integers(0, 3), any_time),
        st.builds(Asked, st.integers(0, 3), any_time),
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def bundles() -> Iterator[list[Bundle]]:
    """Two catalogues, each with returns and without."""
    with tempfile.TemporaryDirectory() as folder:
        yield [
            Bundle.open(
                write_tiny_bundle(Path(folder) / f"{items}-{filter_seen}", items=items, filter_seen=filter_seen)
            )
            for items in (ITEMS, ITEMS - 2)
            for filter_seen in (False, True)
        ]


def told(story: Sequence[Did | Trained | Asked], bundles: list[Bundle]) -> tuple[int, int]:
    """Act a story; how many events were asked for, and how often there was none."""
    asked: list[Key] = []
    trained, keys = set[Key](), set[Key]()

    def answer(_: object, held: HeldEvent, *_more: object) -> NDArray[np.float32]:
        assert (held.item, held.place.at_us) in [(event.item, event.at_us) for event in profile.events(story_now)]
        asked.append((held.item, held.place.at_us))
        return np.array([0, 0, 1], np.float32)

    none = 0
    with Profile() as profile, pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated_counts._Counting, "_answer", answer)
        patch.setattr(profile_module, "BLOCK_EVENTS", 2)
        for step in story:
            if isinstance(step, Did):
                if (f"item-{step.item}", step.at_us) not in keys:
                    keys.add((f"item-{step.item}", step.at_us))
                    profile.append(f"item-{step.item}", "view", step.at_us)
                continue
            bundle, story_now = bundles[step.bundle], step.now_us
            if isinstance(step, Trained):
                found = training_events(profile, bundle, now_us=story_now, newest=100, stop=lambda: False)
                trained |= {
                    (f"item-{item}", at_us) for item, at_us in zip(found.items, found.at_us.tolist(), strict=True)
                }
                continue
            before = len(asked)
            counted = own_segments(PLAN, bundle, profile, now_us=story_now)["evaluation"][2]
            assert counted == len(asked) - before
            assert not trained & set(asked[before:]), "asked for what it was trained on"
            none += not counted
    return len(asked), none


@settings(deadline=None, max_examples=300)
@given(story=any_story)
def test_no_event_is_ever_asked_for_that_was_trained_on(
    story: list[Did | Trained | Asked], bundles: list[Bundle]
) -> None:
    told(story, bundles)


@settings(deadline=None)
@given(
    items=st.lists(st.integers(1, ITEMS), min_size=1, max_size=12),
    rounds=st.lists(st.booleans(), min_size=1, max_size=12),
    bundle=st.integers(0, 1),
)
def test_what_training_saw_never_costs_an_evaluation_while_nothing_strange_happens(
    items: list[int], rounds: list[bool], bundle: int, bundles: list[Bundle]
) -> None:
    """One bundle, events in their order, a clock that rises: with training there is as much to ask for as without."""
    story: list[Did | Trained | Asked] = []
    for at_us, item in enumerate(items):
        story.append(Did(item, at_us))
        story.extend(Trained(bundle, at_us) for _ in range(rounds[at_us % len(rounds)]))
        story.append(Asked(bundle, at_us))
    without = [step for step in story if not isinstance(step, Trained)]
    assert told(story, bundles) == told(without, bundles)
