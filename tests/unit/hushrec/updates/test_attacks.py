"""A repository that lies, in each way that TUF was made against: the release in use stays, nothing else is opened."""

import hashlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.updates import Progress, Updater
from hushrec.updates import updater as updater_module
from hushrec_privacy.errors import FleetError, HushrecError, ReleaseError
from hushrec_server.releases import Lifetimes, ReleaseKeys, ReleaseRepository

from tests.release_shop import DAY_S, Handler, Server, Shop, serving, wait_until


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.publish(1)
    return shop


@pytest.fixture
def server(shop: Shop) -> Iterator[Server]:
    with serving(shop.repository.folder) as server:
        yield server


@pytest.fixture
def device(shop: Shop, server: Server) -> Updater:
    device = shop.updater(server.url)
    device.fetch()
    return device


def stays_at_1(device: Updater) -> None:
    assert Bundle.open(device.current(), verify=True).manifest.model_version == 1
    for path in device.current().parent.iterdir():
        if path.is_dir() and path.name.isdigit():
            Bundle.open(path, verify=True)


def refuses(device: Updater, error: type[HushrecError], match: str) -> None:
    with pytest.raises(error, match=match):
        device.fetch()
    stays_at_1(device)


def metadata(shop: Shop) -> Path:
    return shop.repository.folder / "metadata"


def copied(shop: Shop) -> Path:
    """The repository as it is now, kept for a lie later."""
    return Path(shutil.copytree(shop.repository.folder, shop.folder / f"kept-{time.monotonic_ns()}"))


def test_going_back_to_an_older_repository_is_refused(shop: Shop, server: Server, device: Updater) -> None:
    old = copied(shop)
    shop.publish(2)
    device.check()  # has seen the newer one
    server.folder = old
    refuses(device, FleetError, "status 404")  # it still has the newer one in mind
    refuses(device, ReleaseError, "went back")


def test_an_older_repository_is_refused_after_a_restart_too(shop: Shop, server: Server, device: Updater) -> None:
    old = copied(shop)
    shop.publish(2)
    device.check()
    server.folder = old
    refuses(shop.updater(server.url), ReleaseError, "went back")


def test_a_lower_version_is_refused_even_if_the_shop_signed_it(shop: Shop, server: Server) -> None:
    shop.publish(5)
    device = shop.updater(server.url)
    device.fetch()
    other = ReleaseRepository.create(shop.folder / "other", shop.keys, clock=shop.clock)
    for seed in (1, 2, 3, 4):  # as many changes, so that no version of metadata goes back
        other.publish(shop.bundle(seed, seed), ledger_head=None, demo=False)
    other.prune(4)
    server.folder = other.folder
    with pytest.raises(ReleaseError, match="never goes back"):
        device.fetch()
    assert Bundle.open(device.current()).manifest.model_version == 5


def test_a_frozen_repository_is_told_from_a_quiet_one(shop: Shop, device: Updater) -> None:
    shop.clock.now += DAY_S - 60
    assert device.check() is None, "quiet"
    shop.clock.now += 120
    refuses(device, ReleaseError, "past its time")
    shop.repository.refresh()
    assert device.check() is None


@pytest.mark.parametrize(("role", "days"), [("snapshot", 8), ("targets", 91), ("root", 366)])
def test_each_role_expires(shop: Shop, server: Server, role: str, days: int) -> None:
    life_s = {
        "root_s": 4000 * DAY_S,
        "targets_s": 3000 * DAY_S,
        "snapshot_s": 2000 * DAY_S,
        "timestamp_s": 1000 * DAY_S,
    }
    lifetimes = Lifetimes()
    assert getattr(lifetimes, f"{role}_s") < days * DAY_S < 1000 * DAY_S
    order = ["root", "targets", "snapshot", "timestamp"]
    for other in order[order.index(role) :]:
        life_s[f"{other}_s"] = getattr(lifetimes, f"{role}_s")
    other_shop = Shop(shop.folder / role, shop.clock, Lifetimes(**life_s))
    other_shop.publish(1)
    server.folder = other_shop.repository.folder
    other_device = other_shop.updater(server.url)
    other_device.fetch()
    shop.clock.now += days * DAY_S
    keys = ReleaseKeys(online=other_shop.keys.online)
    forever = Lifetimes(**dict.fromkeys(life_s, 9000 * DAY_S))
    if role in ("root", "targets"):
        with pytest.raises(ReleaseError, match=f"{role} metadata has expired"):
            ReleaseRepository(server.folder, keys, clock=shop.clock, lifetimes=forever).refresh()
    refuses(other_device, ReleaseError, "past its time")


def test_a_mix_of_two_states_is_refused(shop: Shop, server: Server, device: Updater) -> None:
    old_targets = (metadata(shop) / "2.targets.json").read_bytes()
    shop.publish(2)

    def mixed(handler: Handler, data: bytes) -> bytes | None:
        return old_targets if handler.path.endswith("3.targets.json") else data

    server.answer = mixed
    refuses(device, ReleaseError, "not what the metadata names")


def test_another_shops_keys_are_refused(shop: Shop, server: Server, device: Updater) -> None:
    other = Shop(shop.folder / "elsewhere", shop.clock)
    other.publish(9)
    server.folder = other.repository.folder
    refuses(device, ReleaseError, "not signed by the keys that count")


def test_a_root_signed_by_strangers_is_refused(shop: Shop, server: Server, device: Updater) -> None:
    other = Shop(shop.folder / "elsewhere", shop.clock)
    other.publish(9)
    other.repository.rotate_root()
    server.folder = other.repository.folder  # offers 2.root.json
    refuses(device, ReleaseError, "not signed by the keys that count")


def test_a_device_with_another_root_believes_nothing(shop: Shop, server: Server) -> None:
    other = Shop(shop.folder / "elsewhere", shop.clock)
    with pytest.raises(ReleaseError, match="not signed"):
        Updater(server.url, shop.folder / "stranger", other.root, clock=shop.clock).fetch()


@pytest.mark.parametrize("root", [b"", b"{}", b"\xff" * 100, b'{"signed": {}, "signatures": []}'])
def test_a_trusted_root_that_is_none_is_refused(shop: Shop, server: Server, root: bytes) -> None:
    with pytest.raises(ReleaseError, match="malformed"):
        Updater(server.url, shop.folder / "stranger", root, clock=shop.clock).fetch()


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.targets.json"])
def test_a_changed_number_in_any_metadata_is_found(shop: Shop, server: Server, device: Updater, name: str) -> None:
    shop.publish(2)

    def changed(handler: Handler, data: bytes) -> bytes | None:
        if not handler.path.endswith(name):
            return data
        signed = json.loads(data)
        signed["signed"]["version"] += 1
        return json.dumps(signed, separators=(",", ":")).encode()

    server.answer = changed
    refuses(device, ReleaseError, "not signed|not what the metadata names")


@pytest.mark.parametrize("garbage", [b"", b"null", b"[]", b"{" * 5000, b"\x00\xff" * 200, b'{"signed": 1}'])
def test_garbage_for_metadata_is_refused(server: Server, device: Updater, garbage: bytes) -> None:
    server.answer = lambda handler, data: garbage if handler.path.endswith("timestamp.json") else data
    refuses(device, ReleaseError, "malformed")


@pytest.mark.parametrize("where", ["/blobs/", ".release.json"])
def test_a_changed_target_is_found_and_nothing_of_it_is_kept(
    shop: Shop, server: Server, device: Updater, where: str
) -> None:
    shop.publish(2, seed=9)
    server.answer = lambda handler, data: bytes(len(data)) if where in handler.path else data
    refuses(device, ReleaseError, "not what the metadata names")
    assert not list((shop.folder / "device" / "parts").iterdir())
    server.answer = None
    assert device.fetch() is not None, "and the next try begins anew"


def test_a_truncated_blob_is_continued_not_opened(shop: Shop, server: Server, device: Updater) -> None:
    shop.publish(2, seed=9)
    server.answer = lambda handler, data: data[:-7] if "/blobs/" in handler.path else data
    server.ranges = False
    refuses(device, ReleaseError, "not what the metadata names")


def test_a_connection_that_breaks_is_tried_again_later(shop: Shop, server: Server, device: Updater) -> None:
    shop.publish(2, seed=9)

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
        device.fetch()
    assert failed.value.reason == "unreachable"
    stays_at_1(device)
    assert any(part.stat().st_size for part in (shop.folder / "device" / "parts").iterdir())
    server.answer = None
    assert device.fetch() is not None


def endless(handler: Handler, begin: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        handler.wfile.write(begin)
        while True:
            handler.wfile.write(bytes(1 << 16))
            handler.server.sent += 1 << 16
    except OSError:
        handler.close_connection = True


@pytest.mark.parametrize("where", ["timestamp.json", "/blobs/", "snapshot.json"])
def test_endless_data_is_cut_off(shop: Shop, server: Server, device: Updater, where: str) -> None:
    shop.publish(2, seed=9)

    def answer(handler: Handler, data: bytes) -> bytes | None:
        if where not in handler.path:
            return data
        endless(handler, data)
        return None

    server.answer = answer
    refuses(device, ReleaseError, "sends more than")
    assert server.sent < 1 << 24, "buffers of the kernel aside, little was taken"


def drip(handler: Handler) -> bytes | None:
    """One byte now and then, headers too: never quiet for long enough to time out."""
    try:
        if "/blobs/" in handler.path:
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass
    return None


@pytest.mark.parametrize("where", ["timestamp.json", "/blobs/"])
def test_a_server_that_drips_cannot_hold_a_step(shop: Shop, server: Server, device: Updater, where: str) -> None:
    shop.publish(2, seed=9)
    server.answer = lambda handler, data: drip(handler) if where in handler.path else data
    began = time.monotonic()
    with pytest.raises(FleetError) as slow:
        device.step(budget_s=0.6)
    assert time.monotonic() - began < 3
    assert slow.value.reason == "unreachable"
    stays_at_1(device)


def test_a_slow_but_honest_server_gets_there_in_steps(
    shop: Shop, server: Server, device: Updater, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater_module, "LEAST_BYTES_PER_S", 1)
    shop.publish(2, seed=9)

    def slow(handler: Handler, data: bytes) -> bytes | None:
        if "/blobs/" not in handler.path:
            return data
        begin = int(handler.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - begin))
        handler.end_headers()
        try:
            for at in range(begin, len(data), 200):
                handler.wfile.write(data[at : at + 200])
                time.sleep(0.05)
        except OSError:
            handler.close_connection = True
        return None

    server.answer = slow
    steps = [device.step(budget_s=0.8)]
    while steps[-1] is Progress.MORE:
        steps.append(device.step(budget_s=0.8))
    assert steps[-1] is Progress.INSTALLED
    assert len(steps) > 1


def test_a_server_that_only_listens_is_given_up(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        device = shop.updater(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(FleetError):
            device.step(budget_s=0.5)
        assert time.monotonic() - began < 3


def test_no_server_at_all_is_said_with_a_time_to_come_back(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(FleetError) as failed:
        shop.updater(f"http://127.0.0.1:{port}").fetch()
    assert (failed.value.reason, failed.value.retry_after_s) == ("unreachable", 300.0)


def test_a_redirect_is_not_followed(server: Server, device: Updater) -> None:
    def elsewhere(handler: Handler, _: bytes) -> bytes | None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:1/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return None

    server.answer = elsewhere
    refuses(device, FleetError, "status 302")


def test_a_range_that_begins_elsewhere_is_refused(shop: Shop, server: Server, device: Updater) -> None:
    release = shop.publish(2, seed=9)
    device.check()
    for file in release.files:
        (shop.folder / "device" / "parts" / file.sha256).write_bytes(b"1234")

    def shifted(handler: Handler, data: bytes) -> bytes | None:
        if "/blobs/" not in handler.path:
            return data
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 2-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[2:])
        return None

    server.answer = shifted
    refuses(device, FleetError, "status 206")


def test_a_part_that_somebody_else_wrote_is_found_by_its_hash(shop: Shop, device: Updater) -> None:
    release = shop.publish(2, seed=9)
    device.check()
    for file in release.files:
        (shop.folder / "device" / "parts" / file.sha256).write_bytes(b"x" * (file.size + 5))
    refuses(device, ReleaseError, "not what the metadata names")
    while True:  # each bad part is found once
        try:
            device.fetch()
            break
        except ReleaseError:
            stays_at_1(device)
    assert Bundle.open(device.current(), verify=True).manifest.model_version == 2


def test_a_blob_that_went_away_makes_the_device_look_again(shop: Shop, server: Server, device: Updater) -> None:
    shop.publish(2, seed=9)
    gone = True

    def answer(handler: Handler, data: bytes) -> bytes | None:
        nonlocal gone
        if gone and "/blobs/" in handler.path:
            gone = False
            shop.publish(3, seed=8)
            handler.send_error(404)
            return None
        return data

    server.answer = answer
    refuses(device, FleetError, "status 404")
    device.fetch()
    assert Bundle.open(device.current()).manifest.model_version == 3


def test_a_release_whose_parts_do_not_belong_together_is_refused_once(shop: Shop, device: Updater) -> None:
    """The shop's own mistake: every byte is signed, and the whole is no bundle."""
    import msgspec

    release = shop.publish(2, seed=9)
    wrong = msgspec.structs.replace(release, model_version=3, bundle=hashlib.sha256(b"").hexdigest())
    repository = shop.repository
    with repository._files.alone():
        from hushrec_server.releases.roles import read_state

        repository._commit(read_state(repository._files), (release, wrong))
    refuses(device, ReleaseError, "another bundle than it names")
    assert device.fetch() is None, "it is remembered"
    shop.publish(4, seed=7)
    assert device.fetch() is not None, "a higher version is tried"


def test_rotated_keys_are_followed_from_the_shipped_root(shop: Shop, server: Server, device: Updater) -> None:
    new = ReleaseKeys.create(shop.folder / "safe2", shop.folder / "online2")
    old_online = ReleaseRepository(shop.repository.folder, shop.keys, clock=shop.clock)
    shop.repository.rotate_root(new)
    shop.publish(2, seed=9)
    fresh = shop.updater(server.url, "fresh")
    for one in (device, fresh):
        assert one.fetch() is not None
        assert Bundle.open(one.current()).manifest.model_version == 2
    shop.clock.now += DAY_S
    with pytest.raises(ReleaseError, match="not the one that root names"):
        old_online.refresh()


def test_what_the_old_keys_sign_after_a_rotation_is_refused(shop: Shop, server: Server, device: Updater) -> None:
    stolen = Path(shutil.copytree(shop.repository.folder, shop.folder / "stolen"))
    shop.repository.rotate_root(ReleaseKeys.create(shop.folder / "safe2", shop.folder / "online2"))
    device.check()
    thief = ReleaseRepository(stolen, shop.keys, clock=shop.clock)
    for version in range(2, 9):
        thief.publish(shop.bundle(version, version), ledger_head=None, demo=False)
    for root in metadata(shop).glob("*.root.json"):
        shutil.copy(root, stolen / "metadata")
    server.folder = stolen
    refuses(device, ReleaseError, "not signed by the keys that count")


def test_a_restored_repository_is_followed_after_new_keys(shop: Shop, server: Server, device: Updater) -> None:
    restored = copied(shop)
    for version in (2, 3, 4):
        shop.publish(version, seed=version)
        device.fetch()
    old = ReleaseRepository(restored, shop.keys, clock=shop.clock)
    server.folder = restored
    refuses_at(device, 4, "went back")
    new = ReleaseKeys.create(shop.folder / "safe2", shop.folder / "online2")
    old.rotate_root(new)
    refuses_at(device, 4, "never goes back")
    old.publish(shop.bundle(5, 5), ledger_head=None, demo=False)
    device.fetch()
    assert Bundle.open(device.current()).manifest.model_version == 5


def refuses_at(device: Updater, version: int, match: str) -> None:
    with pytest.raises(ReleaseError, match=match):
        device.fetch()
    assert Bundle.open(device.current(), verify=True).manifest.model_version == version


def test_a_full_disk_leaves_the_last_good_release(shop: Shop, device: Updater, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.publish(2, seed=9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for module, name in (("hushrec.updates.store", "_link"), ("hushrec.updates.store", "_write"), ("os", "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", full)
            refuses(device, ReleaseError, "No space left")
    assert device.fetch() is not None, "it is not held against the release"


def test_looking_many_times_leaves_no_thread_behind(device: Updater) -> None:
    for _ in range(5):
        device.check()
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "hushrec-deadline"])
