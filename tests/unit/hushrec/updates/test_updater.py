"""An honest repository: devices get what is published, fetch only what they lack, and keep what works."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.recommender import Recommender
from hushrec.updates import Progress
from hushrec_privacy.errors import ConfigError, FleetError, ReleaseError
from hushrec_privacy.plans.limits import UnsafeDemoLimits

from tests.release_shop import Server, Shop, serving


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def server(shop: Shop) -> Iterator[Server]:
    with serving(shop.repository.folder) as server:
        yield server


def version_of(path: Path) -> int:
    return Bundle.open(path, verify=True).manifest.model_version


def test_a_release_is_fetched_tried_and_made_current(shop: Shop, server: Server) -> None:
    release = shop.publish(3)
    device = shop.updater(server.url)
    assert device.check() == release
    path = device.fetch()
    assert path == device.current()
    assert version_of(device.current()) == 3
    assert device.release() == release
    assert shop.updater(server.url).current() == path, "another process sees it too"
    with Recommender.open(device.current()) as recommender:
        assert len(recommender.recommend(5)) == 5


def test_without_anything_there_is_nothing_to_use(shop: Shop, server: Server) -> None:
    device = shop.updater(server.url)
    assert device.check() is None
    assert device.fetch() is None
    assert device.release() is None
    with pytest.raises(ReleaseError, match="no release on this device"):
        device.current()


def test_what_is_in_use_is_not_fetched_again(shop: Shop, server: Server) -> None:
    shop.publish(1)
    device = shop.updater(server.url)
    device.fetch()
    server.asked.clear()
    assert device.fetch() is None
    assert device.step() is Progress.NOTHING_NEW
    assert not [path for path in server.asked if "/targets/blobs/" in path]


def test_only_changed_blobs_are_downloaded(shop: Shop, server: Server) -> None:
    shop.publish(1)
    device = shop.updater(server.url)
    device.fetch()
    changed = shop.publish(2, seed=9)
    server.asked.clear()
    assert version_of(device.fetch() or Path()) == 2
    blobs = {path.rpartition(".")[2] for path in server.asked if "/targets/blobs/" in path}
    assert blobs == {file.sha256 for file in changed.files if file.name in ("manifest.json", "neighbours.bin")}


def test_what_the_app_was_shipped_with_is_used_first_and_not_downloaded(shop: Shop, server: Server) -> None:
    device = shop.updater(server.url, shipped=shop.first)
    assert device.current() == shop.first
    assert device.release() is None
    release = shop.publish(2, seed=9)
    device.fetch()
    assert version_of(device.current()) == 2
    assert len([path for path in server.asked if "/targets/blobs/" in path]) == 2
    assert release.size > 2 * sum(file.size for file in release.files if file.name.startswith("neigh"))


def test_a_newer_app_brings_a_newer_bundle_than_was_fetched(shop: Shop, server: Server) -> None:
    shop.publish(2)
    device = shop.updater(server.url, shipped=shop.first)
    device.fetch()
    newer = shop.updater(server.url, shipped=shop.bundle(5))
    assert version_of(newer.current()) == 5
    assert newer.check() is None, "the repository is behind the app, and nothing goes back"


def test_the_last_two_releases_stay_and_older_ones_go(shop: Shop, server: Server) -> None:
    device = shop.updater(server.url)
    for version in (1, 2, 3):
        shop.publish(version, seed=version)
        device.fetch()
    kept = {path.name for path in (shop.folder / "device" / "releases").iterdir()}
    assert kept == {"2", "2.json", "3", "3.json"}
    blobs = {path.name for path in (shop.folder / "device" / "blobs").iterdir()}
    listed = {file.sha256 for release in shop.repository.list()[1:] for file in release.files}
    assert blobs == listed
    assert not list((shop.folder / "device" / "parts").iterdir())


def test_a_rolled_back_release_comes_as_a_higher_version_without_a_download_of_its_blobs(
    shop: Shop, server: Server
) -> None:
    device = shop.updater(server.url)
    for version in (1, 2):
        shop.publish(version, seed=version)
        device.fetch()
    before = Bundle.open(shop.folder / "device" / "releases" / "1").manifest.files
    shop.repository.rollback(1)
    server.asked.clear()
    opened = Bundle.open(device.fetch() or Path(), verify=True)
    assert opened.manifest.model_version == 3
    assert opened.manifest.files == before
    assert len([path for path in server.asked if "/targets/blobs/" in path]) == 1, "the manifest alone"


def test_a_device_whose_disk_has_no_hard_links_copies(
    shop: Shop, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr("os.link", refuse)
    shop.publish(1)
    assert version_of(shop.updater(server.url).fetch() or Path()) == 1


@pytest.mark.parametrize("requests", range(5))
def test_whoever_stops_it_sees_no_further_request(shop: Shop, server: Server, requests: int) -> None:
    shop.publish(1)
    device = shop.updater(server.url)
    assert device.fetch(stop=lambda: len(server.asked) >= requests) is None
    assert len(server.asked) == requests
    assert version_of(device.fetch() or Path()) == 1


def test_a_stopped_download_goes_on_where_it_was(shop: Shop, server: Server) -> None:
    release = shop.publish(1)
    device = shop.updater(server.url)
    assert device.fetch(stop=lambda: server.sent > release.size // 2) is None
    sent = server.sent
    assert device.fetch() == device.current()
    assert server.sent - sent < release.size, "what was here was not fetched again"


@pytest.mark.parametrize("ranges", [True, False])
def test_half_a_blob_is_continued_if_the_server_can(shop: Shop, server: Server, ranges: bool) -> None:
    release = shop.publish(1)
    (largest,) = (file for file in release.files if file.name == "catalog.sqlite")
    device = shop.updater(server.url)
    device.check()
    part = shop.folder / "device" / "parts" / largest.sha256
    part.write_bytes((shop.first / "catalog.sqlite").read_bytes()[:30_000])
    server.ranges, server.sent = ranges, 0
    assert device.fetch() is not None
    assert (server.sent < release.size) is ranges


def test_steps_reach_the_same_end_as_a_fetch(shop: Shop, server: Server) -> None:
    shop.publish(1)
    device = shop.updater(server.url)
    steps = [device.step(budget_s=5.0)]
    while steps[-1] is Progress.MORE:
        steps.append(device.step(budget_s=5.0))
    assert steps[-1] is Progress.INSTALLED
    assert device.step() is Progress.NOTHING_NEW


@pytest.mark.parametrize("budget_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_needs_some_time(shop: Shop, server: Server, budget_s: float) -> None:
    with pytest.raises(ConfigError, match="budget_s"):
        shop.updater(server.url).step(budget_s)


def test_demonstrations_are_refused_unless_the_type_says_so(shop: Shop, server: Server) -> None:
    shop.publish(1, demo=True)
    device = shop.updater(server.url)
    with pytest.raises(ReleaseError, match="DEMO"):
        device.fetch()
    assert not [path for path in server.asked if "/targets/blobs/" in path]
    demo = shop.updater(server.url, limits=UnsafeDemoLimits())
    assert version_of(demo.fetch() or Path()) == 1


def test_two_updaters_of_one_folder_do_not_work_at_once(shop: Shop, server: Server) -> None:
    shop.publish(1)
    one, two = shop.updater(server.url), shop.updater(server.url)
    refused: list[FleetError] = []

    def look_in() -> bool:
        with pytest.raises(FleetError) as busy:
            two.step()
        refused.append(busy.value)
        return False

    one.fetch(stop=look_in)
    assert refused[0].reason == "busy"
    assert refused[0].retry_after_s
    assert two.fetch() is None


def test_a_damaged_current_release_is_stepped_back_from_and_fetched_again(shop: Shop, server: Server) -> None:
    device = shop.updater(server.url)
    for version in (1, 2):
        shop.publish(version, seed=version)
        device.fetch()
    items = device.current() / "neighbours.bin"
    data = bytearray(items.read_bytes())
    data[7] ^= 1
    items.write_bytes(data)
    device = shop.updater(server.url)
    assert version_of(device.current(verify=True)) == 1
    assert version_of(device.fetch() or Path()) == 2
    assert version_of(device.current(verify=True)) == 2


def test_a_lost_pointer_is_as_if_nothing_was_fetched(shop: Shop, server: Server) -> None:
    shop.publish(2)
    device = shop.updater(server.url, shipped=shop.first)
    device.fetch()
    (shop.folder / "device" / "state.json").write_bytes(b"\0\0")
    assert device.current() == shop.first
    assert version_of(device.fetch() or Path()) == 2


def test_a_lost_release_directory_leaves_the_one_before(shop: Shop, server: Server) -> None:
    device = shop.updater(server.url)
    for version in (1, 2):
        shop.publish(version, seed=version)
        device.fetch()
    shutil.rmtree(device.current())
    assert version_of(device.current()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/releases",
        "ftp://127.0.0.1/",
        "https://",
        "releases",
        "https://user@shop.example/",
        "https://shop.example/?x=1",
        "http://127.0.0.1.shop.example/",
    ],
)
def test_only_https_and_this_machine_are_asked(shop: Shop, url: str) -> None:
    with pytest.raises(ConfigError, match="releases"):
        shop.updater(url)
