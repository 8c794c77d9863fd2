"""A candidate is fetched, verified and tried like a release, kept beside it, never in use, and gone when superseded."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.recommender import Recommender
from hushrec.releases import MAX_RELEASE_BYTES, Release
from hushrec.updates import Candidate, Updater
from hushrec.updates import updater as updater_module
from hushrec_privacy.errors import FleetError, ReleaseError
from hushrec_privacy.plans.limits import UnsafeDemoLimits

from tests.release_shop import Handler, Server, Shop, serving
from tests.tiny_bundle import tiny_bundle
from tests.unit.hushrec.updates.test_self_test import poison


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """With release 1 out."""
    shop = Shop(tmp_path)
    shop.publish(1)
    return shop


@pytest.fixture
def server(shop: Shop) -> Iterator[Server]:
    with serving(shop.repository.folder) as server:
        yield server


@pytest.fixture
def device(shop: Shop, server: Server) -> Updater:
    """Has release 1."""
    device = shop.updater(server.url)
    device.fetch()
    server.asked.clear()
    return device


def blobs(server: Server) -> list[str]:
    return [path for path in server.asked if "/targets/blobs/" in path]


def kept(shop: Shop) -> set[str]:
    """What lies in the device's folder of releases."""
    return {path.name for path in (shop.folder / "device" / "releases").iterdir() if path.is_dir()}


def version_of(path: Path | None) -> int:
    assert path is not None
    return Bundle.open(path, verify=True).manifest.model_version


def in_use(device: Updater) -> int:
    return version_of(device.current(verify=True))


def test_a_candidate_is_fetched_tried_and_not_used(shop: Shop, server: Server, device: Updater) -> None:
    staged = shop.stage(2, seed=9)
    found = device.candidate()
    assert found is not None
    assert found.sha256 == staged.bundle
    assert version_of(found.path) == 2
    assert in_use(device) == 1
    assert device.release() != staged
    assert len(blobs(server)) == 2, "what it has in common with the release is not fetched"
    assert device.fetch() is None
    assert in_use(shop.updater(server.url)) == 1, "another process does not use it either"
    with Recommender.open(device.current()) as recommender:
        assert recommender.bundle.manifest.model_version == 1


def test_without_a_candidate_there_is_nothing_to_compare(shop: Shop, server: Server, device: Updater) -> None:
    assert device.candidate() is None
    nowhere = Shop(shop.folder / "empty", shop.clock)
    server.folder = nowhere.repository.folder
    empty = Updater(server.url, shop.folder / "other", nowhere.root, shipped=nowhere.first, clock=shop.clock)
    assert empty.candidate() is None, "nor any release"
    assert kept(shop) == {"1"}


def test_what_is_here_is_not_fetched_or_tried_again(
    shop: Shop, server: Server, device: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.stage(2, seed=9)
    first = device.candidate()
    server.asked.clear()

    def forbidden(_: Path) -> None:
        raise AssertionError

    monkeypatch.setattr(updater_module, "self_test", forbidden)
    assert device.candidate() == first
    assert shop.updater(server.url).candidate() == first
    assert not blobs(server)


def test_an_update_leaves_a_candidate_that_is_still_offered(shop: Shop, server: Server, device: Updater) -> None:
    shop.stage(2, seed=9)
    found = device.candidate()
    assert found is not None
    assert device.check() is None
    assert device.fetch() is None
    assert shop.updater(server.url).fetch() is None
    assert version_of(found.path) == 2


def test_a_candidate_that_becomes_the_release_is_not_downloaded_again(
    shop: Shop, server: Server, device: Updater
) -> None:
    staged = shop.stage(2, seed=9)
    device.candidate()
    shop.repository.accept(staged.bundle, ledger_head=None)
    server.asked.clear()
    assert version_of(device.fetch()) == 2
    assert not blobs(server)
    assert kept(shop) == {"1", "2"}, "the candidate's own folder is gone"
    assert device.candidate() is None


def test_a_candidate_goes_with_its_release_though_there_is_a_next_one(shop: Shop, device: Updater) -> None:
    first = shop.stage(2, seed=9)
    device.candidate()
    shop.repository.accept(first.bundle, ledger_head=None)
    shop.stage(3, seed=8)
    device.fetch()
    assert kept(shop) == {"1", "2"}


def test_a_candidate_that_is_replaced_goes(shop: Shop, device: Updater) -> None:
    first = shop.stage(2, seed=9)
    device.candidate()
    shop.repository.withdraw()
    second = shop.stage(2, seed=8)  # the same version, another bundle
    found = device.candidate()
    assert found is not None
    assert found.sha256 == second.bundle != first.bundle
    assert kept(shop) == {"1", second.bundle}
    listed = {file.sha256 for release in (*shop.repository.list(), second) for file in release.files}
    assert {path.name for path in (shop.folder / "device" / "blobs").iterdir()} == listed


@pytest.mark.parametrize("look", [Updater.candidate, Updater.check, Updater.fetch])
def test_a_candidate_that_is_withdrawn_goes_with_the_next_look(
    shop: Shop, device: Updater, look: Callable[[Updater], object]
) -> None:
    shop.stage(2, seed=9)
    device.candidate()
    shop.repository.withdraw()
    assert look(device) is None
    assert kept(shop) == {"1"}
    assert {path.name for path in (shop.folder / "device" / "blobs").iterdir()} == {
        file.sha256 for file in shop.repository.list()[0].files
    }


@pytest.mark.parametrize("change", ["publish", "rollback"])
def test_a_candidate_that_another_release_supersedes_goes(shop: Shop, device: Updater, change: str) -> None:
    shop.publish(2, seed=7)
    device.fetch()
    shop.stage(3, seed=9)
    device.candidate()
    shop.publish(3, seed=8) if change == "publish" else shop.repository.rollback(1)
    with pytest.raises(FleetError) as stale:
        device.candidate()
    assert (stale.value.reason, stale.value.retry_after_s) == ("release", 0)
    device.fetch()
    assert in_use(device) == 3
    assert kept(shop) == {"2", "3"}
    assert device.candidate() is None


def test_a_device_with_an_older_release_updates_first(shop: Shop, server: Server, device: Updater) -> None:
    shop.publish(2, seed=8)
    staged = shop.stage(3, seed=9)
    server.asked.clear()
    with pytest.raises(FleetError, match="not in use here") as stale:
        device.candidate()
    assert stale.value.reason == "release"
    assert not blobs(server)
    device.fetch()
    found = device.candidate()
    assert found is not None
    assert found.sha256 == staged.bundle


def test_a_device_that_uses_what_it_was_shipped_with_compares_over_that(shop: Shop, server: Server) -> None:
    shop.stage(2, seed=9)
    device = shop.updater(server.url, shipped=shop.bundle(1))
    found = device.candidate()
    assert found is not None
    assert version_of(found.path) == 2
    assert len(blobs(server)) == 2, "what the shipped bundle has is adopted"
    assert version_of(device.current()) == 1


def test_a_shipped_bundle_beyond_the_repository_is_compared_with_nothing(shop: Shop, server: Server) -> None:
    shop.stage(2, seed=9)
    with pytest.raises(FleetError) as stale:
        shop.updater(server.url, shipped=shop.bundle(5)).candidate()
    assert stale.value.reason == "release"


def test_a_candidate_that_is_a_demonstration_is_refused_unless_the_type_says_so(
    shop: Shop, server: Server, device: Updater
) -> None:
    shop.stage(2, seed=9, demo=True)
    with pytest.raises(ReleaseError, match="DEMO"):
        device.candidate()
    assert not blobs(server)
    assert kept(shop) == {"1"}
    demo = shop.updater(server.url, limits=UnsafeDemoLimits())
    found = demo.candidate()
    assert found is not None
    assert version_of(found.path) == 2


def test_a_candidate_below_the_release_is_none(shop: Shop, server: Server, device: Updater) -> None:
    """Signed by the shop's own mistake: what could never be the next release is compared with nothing."""
    release = shop.repository.list()[0]
    name_candidate(shop, release)
    assert device.candidate() is None
    assert not blobs(server)


def name_candidate(shop: Shop, candidate: Release, data: bytes | None = None) -> None:
    """Sign a candidate that `stage` would not, of any bytes."""
    from hushrec.releases import CANDIDATE
    from hushrec_server.releases.roles import ROLES, read_state
    from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # exported there without saying so

    repository, written = shop.repository, candidate.encode() if data is None else data
    with repository._files.alone():
        state = read_state(repository._files)
        state.targets.signed.targets[CANDIDATE] = TargetFile.from_data(CANDIDATE, written, ["sha256"])
        repository._files.put_target(CANDIDATE, written)
        repository._writer.resign(state, ROLES, shop.keys)


@pytest.mark.parametrize("data", [b"{}", b"[" * 9, b" " * (MAX_RELEASE_BYTES + 1)])
def test_a_candidate_that_cannot_be_read_hinders_no_update(shop: Shop, device: Updater, data: bytes) -> None:
    shop.publish(2, seed=8)
    name_candidate(shop, shop.repository.list()[1], data)
    device.fetch()
    assert in_use(device) == 2
    with pytest.raises(ReleaseError):
        device.candidate()
    assert device.fetch() is None


def test_a_candidate_that_does_not_work_here_is_known_not_to(shop: Shop, server: Server, device: Updater) -> None:
    bad = shop.bundle(1, seed=3)
    poison(bad, np.nan)  # is version 2 now
    staged = shop.repository.stage(bad, ledger_head=None, demo=False)
    assert device.candidate() == Candidate(staged.bundle, None)
    assert kept(shop) == {"1"}, "its room is given back"
    assert len(list((shop.folder / "device" / "blobs").iterdir())) == len(shop.repository.list()[0].files)
    server.asked.clear()
    for again in (device, shop.updater(server.url)):
        assert again.candidate() == Candidate(staged.bundle, None)
    assert not blobs(server)
    shop.repository.withdraw()
    good = shop.stage(2, seed=9)
    assert version_of((device.candidate() or Candidate("", None)).path) == 2, "the same version, another bundle"
    shop.repository.accept(good.bundle, ledger_head=None)
    assert version_of(device.fetch()) == 2, "and a failed candidate is held against no release"


def test_a_candidate_whose_parts_do_not_belong_together_does_not_work_here(shop: Shop, device: Updater) -> None:
    staged = shop.stage(2, seed=9)
    wrong = msgspec.structs.replace(staged, bundle="ab" * 32)
    name_candidate(shop, wrong)
    assert device.candidate() == Candidate("ab" * 32, None)


def test_a_candidate_that_ends_the_process_is_given_up_after_three_tries(
    shop: Shop, server: Server, device: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing can handle it."""

    def killer(_: Path) -> None:
        raise Killed

    staged = shop.stage(2, seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(updater_module, "self_test", killer)
        for _ in range(updater_module.MAX_TRIES):
            with pytest.raises(Killed):
                shop.updater(server.url).candidate()
            assert in_use(device) == 1
        assert shop.updater(server.url).candidate() == Candidate(staged.bundle, None)
    assert shop.updater(server.url).candidate() == Candidate(staged.bundle, None)
    shop.repository.withdraw()
    shop.stage(2, seed=8)
    assert version_of((device.candidate() or Candidate("", None)).path) == 2


def test_a_candidate_that_was_damaged_here_is_fetched_again(shop: Shop, server: Server, device: Updater) -> None:
    shop.stage(2, seed=9)
    found = device.candidate()
    assert found is not None
    assert found.path is not None
    for name, damage in (("neighbours.bin", True), ("items.bin", False)):
        if damage:
            data = bytearray((found.path / name).read_bytes())
            data[7] ^= 1
            (found.path / name).write_bytes(data)
        else:
            (found.path / name).unlink()
        server.asked.clear()
        assert version_of((device.candidate() or found._replace(path=None)).path) == 2
        assert len(blobs(server)) == damage
    shutil.rmtree(found.path)
    assert version_of((device.candidate() or found._replace(path=None)).path) == 2


def test_a_disk_that_damages_a_candidate_is_not_held_against_it(
    shop: Shop, device: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.stage(2, seed=9)

    def damaging(bundle: Path) -> None:
        data = bytearray((bundle / "neighbours.bin").read_bytes())
        data[7] ^= 1
        (bundle / "neighbours.bin").write_bytes(data)
        raise ReleaseError("a new release does not work here")

    with monkeypatch.context() as patch:
        patch.setattr(updater_module, "self_test", damaging)
        with pytest.raises(ReleaseError):
            device.candidate()
    assert version_of((device.candidate() or Candidate("", None)).path) == 2


@pytest.mark.parametrize("where", ["/blobs/", ".candidate.json"])
def test_a_changed_byte_is_found_and_the_release_stays(shop: Shop, server: Server, device: Updater, where: str) -> None:
    shop.stage(2, seed=9)
    server.answer = lambda handler, data: bytes(len(data)) if where in handler.path else data
    with pytest.raises(ReleaseError, match="not what the metadata names"):
        device.candidate()
    assert not list((shop.folder / "device" / "parts").iterdir())
    assert in_use(device) == 1
    server.answer = None
    assert version_of((device.candidate() or Candidate("", None)).path) == 2


def test_a_connection_that_breaks_is_gone_on_with(shop: Shop, server: Server, device: Updater) -> None:
    shop.stage(2, seed=9)

    def breaks(handler: Handler, data: bytes) -> bytes | None:
        if "/blobs/" not in handler.path:
            return data
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        return None

    server.answer = breaks
    with pytest.raises(FleetError) as failed:
        device.candidate()
    assert failed.value.reason == "unreachable"
    assert any(part.stat().st_size for part in (shop.folder / "device" / "parts").iterdir())
    server.answer = None
    assert device.candidate() is not None


@pytest.mark.parametrize("requests", range(6))
def test_whoever_stops_it_sees_no_further_request(shop: Shop, server: Server, device: Updater, requests: int) -> None:
    shop.stage(2, seed=9)
    assert device.candidate(stop=lambda: len(server.asked) >= requests) is None
    assert len(server.asked) == requests
    assert version_of((device.candidate() or Candidate("", None)).path) == 2


def test_two_updaters_of_one_folder_do_not_work_at_once(shop: Shop, server: Server, device: Updater) -> None:
    shop.stage(2, seed=9)
    other, refused = shop.updater(server.url), []

    def look_in() -> bool:
        with pytest.raises(FleetError) as busy:
            other.candidate()
        refused.append(busy.value.reason)
        return False

    assert device.candidate(stop=look_in) is not None
    assert set(refused) == {"busy"}


def test_a_full_disk_is_not_held_against_a_candidate(
    shop: Shop, device: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.stage(2, seed=9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for module, name in (("hushrec.updates.store", "_link"), ("hushrec.updates.store", "_write"), ("os", "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", full)
            with pytest.raises(ReleaseError, match="No space left"):
                device.candidate()
        assert in_use(device) == 1
    assert version_of((device.candidate() or Candidate("", None)).path) == 2


def test_a_state_file_of_an_older_hushrec_is_read(shop: Shop, server: Server, device: Updater) -> None:
    assert in_use(device) == 1
    state = shop.folder / "device" / "state.json"
    state.write_bytes(b'{"current":1,"previous":0,"refused":0,"tried":0,"tries":0}')
    assert in_use(shop.updater(server.url)) == 1
    shop.stage(2, seed=9)
    assert shop.updater(server.url).candidate() is not None
    assert in_use(shop.updater(server.url)) == 1


def test_what_lies_where_candidates_lie_is_never_current(tmp_path: Path) -> None:
    """What `current` gives is a release or what was shipped, whatever else lies in the folder."""
    device = Updater("http://127.0.0.1:1", tmp_path / "device", b"{}", shipped=tiny_bundle(tmp_path))
    shutil.copytree(device.current(), tmp_path / "device" / "releases" / ("ab" * 32))
    assert device.current() == tmp_path / "shop.hush"
