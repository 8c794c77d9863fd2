"""Publishing, rolling back, refreshing, rotating and pruning, and what each refuses."""

from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.releases import Release
from hushrec_privacy.errors import BundleError, ConfigError, ReleaseError
from hushrec_server.releases import Lifetimes, ReleaseKeys, ReleaseRepository, repository
from hushrec_server.releases.files import RepositoryFiles
from hushrec_server.releases.roles import State, read_state

from tests.release_shop import DAY_S, NOON, Shop

HEAD = "7:" + "0a" * 32


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def with_keys(shop: Shop, **missing: None) -> ReleaseRepository:
    import dataclasses

    return ReleaseRepository(shop.repository.folder, dataclasses.replace(shop.keys, **missing), clock=shop.clock)


def timestamp(shop: Shop) -> bytes:
    return (shop.repository.folder / "metadata" / "timestamp.json").read_bytes()


def test_a_published_release_names_every_byte_of_its_bundle(shop: Shop) -> None:
    release = shop.repository.publish(shop.first, ledger_head=HEAD, demo=False)
    assert release == shop.repository.list()[-1]
    opened = Bundle.open(shop.first)
    assert (release.model_version, release.bundle, release.ledger_head, release.demo) == (1, opened.sha256, HEAD, False)
    assert {file.name for file in release.files} == {*opened.manifest.files, "manifest.json"}
    for file in release.files:
        blob = shop.repository.folder / "targets" / "blobs" / f"{file.sha256}.{file.sha256}"
        assert blob.read_bytes() == (shop.first / file.name).read_bytes()


def test_versions_must_rise(shop: Shop) -> None:
    shop.publish(5)
    before = timestamp(shop)
    for version, seed in ((5, 3), (4, None), (1, None)):
        with pytest.raises(ReleaseError, match=f"model version {version} does not rise: release 5 is out"):
            shop.publish(version, seed=seed)
    assert timestamp(shop) == before
    assert [release.model_version for release in shop.repository.list()] == [5]


def test_publishing_the_newest_once_more_changes_nothing(shop: Shop) -> None:
    release = shop.publish(5)
    before = timestamp(shop)
    assert shop.repository.publish(shop.bundle(5), ledger_head=HEAD, demo=False) == release
    assert timestamp(shop) == before
    with pytest.raises(ReleaseError, match="does not rise"):
        shop.publish(5, demo=True)


def test_a_damaged_bundle_is_not_published(shop: Shop) -> None:
    data = bytearray((shop.first / "items.bin").read_bytes())
    data[0] ^= 1
    (shop.first / "items.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"items\.bin"):
        shop.repository.publish(shop.first, ledger_head=None, demo=False)
    assert shop.repository.list() == ()


@pytest.mark.parametrize("head", ["7", "x:" + "0a" * 32, "7:0a", HEAD + "\n"])
def test_a_ledger_head_that_is_none_is_refused(shop: Shop, head: str) -> None:
    with pytest.raises(ReleaseError, match="ledger head"):
        shop.repository.publish(shop.first, ledger_head=head, demo=False)
    assert not list((shop.repository.folder / "targets" / "blobs").iterdir())


def test_the_same_content_is_kept_once(shop: Shop) -> None:
    shop.publish(1)
    shop.publish(2, seed=9)
    blobs = list((shop.repository.folder / "targets" / "blobs").iterdir())
    assert len(blobs) == len(shop.repository.list()[0].files) + 2, "the manifest and one .bin"


def test_rolling_back_publishes_the_old_content_under_a_new_version(shop: Shop) -> None:
    old = shop.repository.publish(shop.first, ledger_head=None, demo=True)
    shop.repository.publish(shop.bundle(2, 9), ledger_head=HEAD, demo=False)
    back = shop.repository.rollback(1)
    assert (back.model_version, back.ledger_head, back.demo) == (3, HEAD, True)
    assert [file for file in back.files if file.name != "manifest.json"] == [
        file for file in old.files if file.name != "manifest.json"
    ]
    assert back.bundle != old.bundle
    assert [release.model_version for release in shop.repository.list()] == [1, 2, 3]
    assert not list((shop.repository.folder / "parts").iterdir())


@pytest.mark.parametrize(("version", "why"), [(0, "none"), (2, "what devices get now"), (3, "none"), (-1, "none")])
def test_only_an_earlier_release_can_be_rolled_back_to(shop: Shop, version: int, why: str) -> None:
    shop.publish(1)
    shop.publish(2, seed=9)
    with pytest.raises(ReleaseError, match=f"release {version} cannot be rolled back to: .*{why}; these can: 1$"):
        shop.repository.rollback(version)


def test_where_there_is_nothing_to_go_back_to_it_is_said(shop: Shop) -> None:
    with pytest.raises(ReleaseError, match="there is no release; nothing to go back to"):
        shop.repository.rollback(1)
    shop.publish(1)
    for version in (1, 2):
        with pytest.raises(ReleaseError, match="there is only one release, 1; nothing to go back to"):
            shop.repository.rollback(version)


def test_a_damaged_blob_is_not_rolled_back_to(shop: Shop) -> None:
    old = shop.publish(1)
    shop.publish(2, seed=9)
    neighbours = next(file for file in old.files if file.name == "neighbours.bin")
    blob = shop.repository.folder / "targets" / "blobs" / f"{neighbours.sha256}.{neighbours.sha256}"
    blob.write_bytes(bytes(neighbours.size))
    with pytest.raises(ReleaseError, match="damaged"):
        shop.repository.rollback(1)
    assert len(shop.repository.list()) == 2


def test_refresh_signs_again_when_half_is_over_and_not_before(shop: Shop) -> None:
    online = with_keys(shop, root=None, targets=None)
    shop.publish(1)
    assert online.refresh().renewed == ()
    before = timestamp(shop)
    shop.clock.now += DAY_S // 2 - 1
    assert online.refresh().renewed == ()
    assert timestamp(shop) == before
    shop.clock.now += 1
    done = online.refresh()
    assert done.renewed == ("timestamp",)
    assert done.expires_at["timestamp"] == shop.clock.now + DAY_S
    shop.clock.now += 3 * DAY_S
    assert online.refresh().renewed == ("snapshot", "timestamp"), "the snapshot is older than half its life"
    assert online.expires_at() == online.refresh().expires_at


def test_refresh_signs_targets_too_where_their_key_is(shop: Shop) -> None:
    shop.clock.now += 45 * DAY_S
    assert with_keys(shop, root=None).refresh().renewed == ("targets", "snapshot", "timestamp")


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (77, "targets metadata expires in 312 hours; hushrec release refresh, or publish, with targets.key"),
        (91, "targets metadata has expired"),
        (352, "root metadata expires in 312 hours; sign a new root: hushrec release rotate"),
    ],
)
def test_refresh_complains_of_offline_roles_after_it_has_done_its_own(shop: Shop, days: int, says: str) -> None:
    shop.clock.now += days * DAY_S
    keys = {"root": None} if "root" in says else {"root": None, "targets": None}
    with pytest.raises(ReleaseError, match=says):
        with_keys(shop, **keys).refresh()
    assert shop.repository.expires_at()["timestamp"] == shop.clock.now + DAY_S


def test_who_reads_while_another_process_signs_is_told_of_no_damage(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, reads = shop.repository.expires_at(), list[RepositoryFiles]()

    def meanwhile(files: RepositoryFiles) -> State:
        reads.append(files)
        if len(reads) == 1:
            raise ReleaseError("the snapshot that the timestamp named is gone")
        return read_state(files)

    monkeypatch.setattr(repository, "read_state", meanwhile)
    assert shop.repository.expires_at() == before


def test_rotating_with_the_same_keys_renews_the_root(shop: Shop) -> None:
    shop.clock.now += 300 * DAY_S
    assert shop.repository.rotate_root().expires_at["root"] == shop.clock.now + 365 * DAY_S
    assert shop.repository.root_bytes() != shop.root


@pytest.mark.parametrize("missing", ["root", "targets", "online"])
def test_every_key_is_needed_to_rotate_and_to_create(shop: Shop, missing: str) -> None:
    with pytest.raises(ReleaseError, match=f"needs {missing}.key"):
        with_keys(shop, **{missing: None}).rotate_root()
    partial = with_keys(shop, **{missing: None})._keys
    with pytest.raises(ReleaseError, match=f"needs {missing}.key"):
        ReleaseRepository.create(shop.folder / "new", partial, clock=shop.clock)
    assert not (shop.folder / "new").exists()


@pytest.mark.parametrize("lost", [{"online": None}, {"targets": None}, {"online": None, "targets": None}])
def test_lost_keys_are_replaced_with_the_root_key(shop: Shop, tmp_path: Path, lost: dict[str, None]) -> None:
    shop.publish(1)
    new = ReleaseKeys.create(tmp_path / "safe2", tmp_path / "online2")
    with_keys(shop, **lost).rotate_root(new)
    after = ReleaseRepository(shop.repository.folder, new, clock=shop.clock)
    assert after.publish(shop.bundle(2), ledger_head=None, demo=False).model_version == 2


def test_without_the_root_key_nothing_is_rotated(shop: Shop, tmp_path: Path) -> None:
    new = ReleaseKeys.create(tmp_path / "safe2", tmp_path / "online2")
    with pytest.raises(ReleaseError, match=r"needs root\.key"):
        with_keys(shop, root=None).rotate_root(new)
    assert len(list((shop.repository.folder / "metadata").glob("*.root.json"))) == 1


def test_publishing_needs_no_root_key_and_refuses_without_the_others(shop: Shop) -> None:
    with_keys(shop, root=None).publish(shop.first, ledger_head=None, demo=False)
    for missing in ("targets", "online"):
        with pytest.raises(ReleaseError, match=f"needs {missing}.key"):
            with_keys(shop, **{missing: None}).publish(shop.bundle(2), ledger_head=None, demo=False)
    assert len(shop.repository.list()) == 1


def test_a_strangers_keys_sign_nothing(shop: Shop, tmp_path: Path) -> None:
    strange = ReleaseKeys.create(tmp_path / "safe2", tmp_path / "online2")
    other = ReleaseRepository(shop.repository.folder, strange, clock=shop.clock)
    before = timestamp(shop)
    with pytest.raises(ReleaseError, match="not the one that root names"):
        other.publish(shop.first, ledger_head=None, demo=False)
    with pytest.raises(ReleaseError, match="not the one that root names"):
        other.rotate_root()
    with pytest.raises(ReleaseError, match="not the one that root names"):
        other.refresh()  # nothing is to be signed yet
    shop.clock.now += DAY_S
    with pytest.raises(ReleaseError, match="not the one that root names"):
        other.refresh()
    assert timestamp(shop) == before
    assert len(list((shop.repository.folder / "metadata").glob("*.root.json"))) == 1


def test_a_strange_targets_key_is_told_of_and_holds_nothing_up(shop: Shop, tmp_path: Path) -> None:
    strange = ReleaseKeys.create(tmp_path / "safe2", tmp_path / "online2")
    mixed = ReleaseKeys(targets=strange.targets, online=shop.keys.online)
    shop.clock.now += DAY_S
    with pytest.raises(ReleaseError, match="key for targets is not the one that root names"):
        ReleaseRepository(shop.repository.folder, mixed, clock=shop.clock).refresh()
    assert shop.repository.expires_at()["timestamp"] == shop.clock.now + DAY_S


def test_pruning_keeps_the_newest_and_frees_what_only_the_others_used(shop: Shop) -> None:
    for version in (1, 2, 3):
        shop.publish(version, seed=version)
    first = shop.repository.list()[0]
    freed = shop.repository.prune(2)
    assert [release.model_version for release in shop.repository.list()] == [2, 3]
    changed = [file.size for file in first.files if file.name in ("manifest.json", "neighbours.bin")]
    assert freed == sum(changed) + len(first.encode()) * 3, "each text lay there as the newest one, too"
    assert shop.repository.prune(2) == 0
    with pytest.raises(ReleaseError, match="cannot be rolled back to"):
        shop.repository.rollback(1)
    with pytest.raises(ConfigError, match="keep"):
        shop.repository.prune(0)


def test_old_metadata_goes_and_roots_stay(shop: Shop) -> None:
    for _ in range(15):
        shop.repository.rotate_root()
    names = [path.name for path in (shop.repository.folder / "metadata").iterdir()]
    assert sum(name.endswith("root.json") for name in names) == 16
    assert sum(name.endswith("targets.json") for name in names) == 10
    assert sum(name.endswith("snapshot.json") for name in names) == 10


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json", "1.root.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "changed"])
def test_damaged_metadata_is_found_before_anything_is_signed_over_it(shop: Shop, name: str, damage: str) -> None:
    shop.publish(1)
    path = shop.repository.folder / "metadata" / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(b"" if damage == "empty" else data.replace(b'"version":', b'"version":1', 1))
    with pytest.raises(ReleaseError, match="damaged"):
        shop.repository.publish(shop.bundle(2), ledger_head=None, demo=False)
    with pytest.raises(ReleaseError, match="damaged"):
        shop.repository.refresh()


def test_a_damaged_release_text_is_found(shop: Shop) -> None:
    shop.publish(1)
    (path,) = (shop.repository.folder / "targets" / "releases").iterdir()
    path.write_bytes(path.read_bytes().replace(b"false", b"true "))
    with pytest.raises(ReleaseError, match="damaged"):
        shop.repository.list()


@pytest.mark.parametrize(
    "life", [{"timestamp_s": 0}, {"snapshot_s": 1}, {"root_s": DAY_S // 2}, {"targets_s": -1}, {"timestamp_s": 1.5}]
)
def test_lifetimes_are_checked(life: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Lifetimes(**life)


def test_a_full_disk_leaves_clients_what_they_had(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.publish(1)
    before, bundle = timestamp(shop), shop.bundle(2, 9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(ReleaseError, match="No space left"):
            shop.repository.publish(bundle, ledger_head=None, demo=False)
    assert timestamp(shop) == before
    assert isinstance(shop.repository.publish(bundle, ledger_head=None, demo=False), Release)
    assert shop.repository.expires_at()["timestamp"] == NOON + DAY_S


class TestCandidate:
    """A bundle that is signed and can be fetched, and that no device uses yet."""

    def stage(self, shop: Shop, version: int, seed: int, *, demo: bool = False) -> Release:
        return shop.repository.stage(shop.bundle(version, seed), ledger_head=HEAD, demo=demo)

    def blob(self, shop: Shop, sha256: str) -> Path:
        return shop.repository.folder / "targets" / "blobs" / f"{sha256}.{sha256}"

    def blobs(self, shop: Shop) -> set[tuple[str, int, int]]:
        found = [(path.name, path.stat()) for path in (shop.repository.folder / "targets" / "blobs").iterdir()]
        return {(name, stat.st_ino, stat.st_mtime_ns) for name, stat in found}

    def test_it_lies_beside_the_releases_with_all_its_files(self, shop: Shop) -> None:
        first = shop.publish(1)
        assert shop.repository.candidate() is None
        candidate = self.stage(shop, 2, 9)
        assert shop.repository.candidate() == candidate
        assert (candidate.model_version, candidate.ledger_head, candidate.demo) == (2, HEAD, False)
        assert shop.repository.list() == (first,)
        for file in candidate.files:
            assert self.blob(shop, file.sha256).stat().st_size == file.size

    def test_staging_it_once_more_changes_nothing_and_another_one_is_refused(self, shop: Shop) -> None:
        shop.publish(1)
        candidate, before = self.stage(shop, 2, 9), timestamp(shop)
        assert self.stage(shop, 2, 9) == candidate
        assert timestamp(shop) == before
        for version, seed, demo in ((2, 8, False), (3, 9, False), (2, 9, True)):
            with pytest.raises(ReleaseError, match="there is a candidate already, model version 2"):
                self.stage(shop, version, seed, demo=demo)
        assert shop.repository.candidate() == candidate

    def test_there_must_be_something_to_compare_it_with_and_its_version_must_rise(self, shop: Shop) -> None:
        with pytest.raises(ReleaseError, match="no release to compare"):
            self.stage(shop, 1, 9)
        shop.publish(5)
        for version in (4, 5):
            with pytest.raises(ReleaseError, match=f"model version {version} does not rise"):
                self.stage(shop, version, 9)
        assert shop.repository.candidate() is None

    def test_accepted_it_is_the_newest_release_with_the_head_of_the_round_that_compared_it(self, shop: Shop) -> None:
        shop.publish(1)
        candidate = self.stage(shop, 2, 9, demo=True)
        blobs = self.blobs(shop)
        later = "8:" + "0b" * 32
        accepted = shop.repository.accept(candidate.bundle, ledger_head=later)
        assert (accepted.bundle, accepted.ledger_head, accepted.demo) == (candidate.bundle, later, True)
        assert shop.repository.list()[-1] == accepted
        assert shop.repository.candidate() is None
        assert self.blobs(shop) == blobs
        before = timestamp(shop)
        assert shop.repository.accept(candidate.bundle, ledger_head=None) == accepted, "asked again after a crash"
        assert timestamp(shop) == before

    def test_only_the_candidate_can_be_accepted(self, shop: Shop) -> None:
        shop.publish(1)
        with pytest.raises(ReleaseError, match="is not the candidate"):
            shop.repository.accept("ab" * 32, ledger_head=None)
        candidate = self.stage(shop, 2, 9)
        with pytest.raises(ReleaseError, match="is not the candidate"):
            shop.repository.accept("ab" * 32, ledger_head=None)
        shop.repository.withdraw()
        with pytest.raises(ReleaseError, match="is not the candidate"):
            shop.repository.accept(candidate.bundle, ledger_head=None)
        assert [release.model_version for release in shop.repository.list()] == [1]

    def test_withdrawn_it_is_gone_and_makes_room_for_the_next_one(self, shop: Shop) -> None:
        shop.publish(1)
        candidate = self.stage(shop, 2, 9)
        shop.repository.withdraw()
        assert shop.repository.candidate() is None
        before = timestamp(shop)
        shop.repository.withdraw()
        assert timestamp(shop) == before
        assert self.stage(shop, 2, 8) != candidate
        shop.repository.prune(10)
        changed = [file for file in candidate.files if file.name in ("manifest.json", "neighbours.bin")]
        assert not any(self.blob(shop, file.sha256).exists() for file in changed)

    @pytest.mark.parametrize("how", ["publish", "rollback"])
    def test_another_release_takes_its_place(self, shop: Shop, how: str) -> None:
        shop.publish(1)
        shop.publish(2, seed=3)
        candidate = self.stage(shop, 3, 9)
        shop.publish(3, seed=8) if how == "publish" else shop.repository.rollback(1)
        assert shop.repository.candidate() is None
        assert shop.repository.list()[-1].bundle != candidate.bundle

    def test_published_by_hand_it_is_a_release_and_no_candidate_any_more(self, shop: Shop) -> None:
        shop.publish(1)
        candidate = self.stage(shop, 2, 9)
        assert shop.publish(2, seed=9).bundle == candidate.bundle
        assert shop.repository.candidate() is None

    def test_what_makes_no_release_keeps_it(self, shop: Shop) -> None:
        for version in (1, 2, 3):
            shop.publish(version, seed=version)
        candidate = self.stage(shop, 4, 9)
        shop.publish(3, seed=3)  # once more: nothing
        assert shop.repository.prune(1) > 0
        shop.clock.now += 60 * DAY_S
        assert shop.repository.refresh().renewed == ("targets", "snapshot", "timestamp")
        shop.repository.rotate_root()
        assert shop.repository.candidate() == candidate
        assert [release.model_version for release in shop.repository.list()] == [3]
        for file in candidate.files:
            assert self.blob(shop, file.sha256).is_file()
        assert shop.repository.accept(candidate.bundle, ledger_head=None).model_version == 4

    @pytest.mark.parametrize("missing", ["targets", "online"])
    def test_each_step_needs_both_keys_and_changes_nothing_without(self, shop: Shop, missing: str) -> None:
        shop.publish(1)
        poor = with_keys(shop, **{missing: None})
        with pytest.raises(ReleaseError, match=f"needs {missing}.key"):
            poor.stage(shop.bundle(2, 9), ledger_head=None, demo=False)
        candidate = self.stage(shop, 2, 9)
        for step in (poor.withdraw, lambda: poor.accept(candidate.bundle, ledger_head=None)):
            with pytest.raises(ReleaseError, match=f"needs {missing}.key"):
                step()
        assert shop.repository.candidate() == candidate
        assert len(shop.repository.list()) == 1

    def test_its_damaged_text_is_found_and_another_release_can_still_go_out(self, shop: Shop) -> None:
        shop.publish(1)
        self.stage(shop, 2, 9)
        (path,) = (shop.repository.folder / "targets").glob("*.candidate.json")
        path.write_bytes(path.read_bytes().replace(b"false", b"true "))
        with pytest.raises(ReleaseError, match="damaged"):
            shop.repository.candidate()
        assert shop.publish(2, seed=8).model_version == 2
        assert shop.repository.candidate() is None
