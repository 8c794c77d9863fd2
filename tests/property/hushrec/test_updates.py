"""Whatever a shop does, whenever a device looks: it has the newest release that it may have, and never goes back."""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hushrec.bundle import Bundle
from hushrec.updates.store import UpdateStore
from hushrec_privacy.errors import FleetError, ReleaseError
from hushrec_privacy.plans.limits import UnsafeDemoLimits
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.release_shop import DAY_S, Server, Shop, serving


class ShopAndDevices(RuleBasedStateMachine):
    """One shop, one normal device and one of a demonstration."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.shop = Shop(Path(self.folder.name))
        self.serving = serving(self.shop.repository.folder)
        self.server: Server = self.serving.__enter__()
        self.releases: list[tuple[int, bool]] = []
        self.candidate: tuple[int, bool] | None = None
        self.fresh_until = self.shop.clock() + DAY_S
        self.reached = {"device": 0, "demo": 0}

    def teardown(self) -> None:
        self.serving.__exit__(None, None, None)
        self.folder.cleanup()

    @rule(step=st.integers(1, 3), seed=st.integers(0, 255), demo=st.booleans())
    def publish(self, step: int, seed: int, demo: bool) -> None:
        version = step + (self.releases[-1][0] if self.releases else 0)
        self.shop.publish(version, seed=seed, demo=demo)
        self.releases.append((version, demo))
        self.candidate = None
        self.fresh_until = self.shop.clock() + DAY_S

    @precondition(lambda self: len(self.releases) > 1)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        version, demo = data.draw(st.sampled_from(self.releases[:-1]))
        self.shop.repository.rollback(version)
        self.releases.append((self.releases[-1][0] + 1, demo))
        self.candidate = None
        self.fresh_until = self.shop.clock() + DAY_S

    @precondition(lambda self: self.releases and self.candidate is None)
    @rule(step=st.integers(1, 3), seed=st.integers(0, 255), demo=st.booleans())
    def stage(self, step: int, seed: int, demo: bool) -> None:
        self.candidate = (step + self.releases[-1][0], demo)
        self.shop.stage(self.candidate[0], seed=seed, demo=demo)
        self.fresh_until = self.shop.clock() + DAY_S

    @precondition(lambda self: self.candidate is not None)
    @rule(accepted=st.booleans())
    def decide(self, accepted: bool) -> None:
        staged = self.shop.repository.candidate()
        assert staged is not None
        if accepted:
            self.shop.repository.accept(staged.bundle, ledger_head=None)
            self.releases.append((staged.model_version, staged.demo))
        else:
            self.shop.repository.withdraw()
        self.candidate = None
        self.fresh_until = self.shop.clock() + DAY_S

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        self.shop.repository.prune(keep)
        if len(self.releases) > keep:
            self.fresh_until = self.shop.clock() + DAY_S
        self.releases = self.releases[-keep:]

    @rule()
    def rotate(self) -> None:
        self.shop.repository.rotate_root()
        self.fresh_until = self.shop.clock() + DAY_S

    @rule(hours=st.integers(1, 30))
    def wait(self, hours: int) -> None:
        self.shop.clock.now += hours * 3600

    @rule()
    def refresh(self) -> None:
        if "timestamp" in self.shop.repository.refresh().renewed:
            self.fresh_until = self.shop.clock() + DAY_S

    @rule(name=st.sampled_from(["device", "demo"]), share=st.floats(0, 1))
    def update(self, name: str, share: float) -> None:
        device = self.shop.updater(self.server.url, name, limits=UnsafeDemoLimits() if name == "demo" else None)
        left = [int(share * 200_000)]

        def stop() -> bool:
            left[0] -= 8_000
            return left[0] < 0

        stale = self.shop.clock() >= self.fresh_until
        refused = bool(self.releases) and self.releases[-1][1] and name == "device"
        if stale or refused:
            with pytest.raises(ReleaseError):
                device.fetch()  # one that is stopped at once has asked nobody
        elif device.fetch(stop) is not None:
            self.reached[name] = self.releases[-1][0]
        elif self.releases and left[0] >= 0:
            assert self.reached[name] == self.releases[-1][0]

    @rule(name=st.sampled_from(["device", "demo"]), share=st.floats(0, 1))
    def compare(self, name: str, share: float) -> None:
        device = self.shop.updater(self.server.url, name, limits=UnsafeDemoLimits() if name == "demo" else None)
        left = [int(share * 200_000)]

        def stop() -> bool:
            left[0] -= 8_000
            return left[0] < 0

        refused = self.shop.clock() >= self.fresh_until
        if self.releases:
            refused |= self.releases[-1][1] and name == "device"
            refused |= self.reached[name] != self.releases[-1][0]
        if self.candidate is not None:
            refused |= self.candidate[1] and name == "device"
        if refused:
            with pytest.raises((ReleaseError, FleetError)):
                device.candidate()
            return
        found = device.candidate(stop)
        if found is None:
            assert self.candidate is None or left[0] < 0
        else:
            assert found.path is not None
            opened = Bundle.open(found.path, verify=True)
            assert self.candidate is not None
            assert (opened.sha256, opened.manifest.model_version) == (found.sha256, self.candidate[0])

    @invariant()
    def what_is_in_use_is_whole_and_as_it_was_reached(self) -> None:
        for name, version in self.reached.items():
            device = self.shop.updater(self.server.url, name)
            if version:
                assert Bundle.open(device.current(), verify=True).manifest.model_version == version
            else:
                with pytest.raises(ReleaseError):
                    device.current()


ShopAndDevices.TestCase.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
TestShopAndDevices = ShopAndDevices.TestCase


def test_the_state_file_survives_what_was_never_written_by_us(tmp_path: Path) -> None:
    store = UpdateStore(tmp_path)
    state = msgspec.structs.replace(store.state(), current=7, previous=6, refused=8)
    store.set_state(state)
    assert store.state() == state
    whole = (tmp_path / "state.json").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "state.json").write_bytes(whole[:cut])
        assert store.state().current == 0
