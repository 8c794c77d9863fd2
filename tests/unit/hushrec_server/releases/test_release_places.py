"""Where a repository and its keys may lie: what is refused before anything is made, and what is read back."""

import pickle
import shutil
import stat
from pathlib import Path

import pytest
from hushrec_privacy.errors import ConfigError, ReleaseError
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.release_shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_what_is_no_repository_is_refused(shop: Shop, tmp_path: Path) -> None:
    nowhere = ReleaseRepository(tmp_path / "nowhere", shop.keys, clock=shop.clock)
    for use in (nowhere.list, nowhere.refresh, nowhere.rotate_root):
        with pytest.raises(ReleaseError, match="nowhere: does not exist; name the folder"):
            use()
    (tmp_path / "nowhere").mkdir()
    for use in (nowhere.list, nowhere.refresh, nowhere.rotate_root):
        with pytest.raises(ReleaseError, match="nowhere: is no release repository; name the folder"):
            use()


def test_a_place_for_a_repository_is_refused_before_keys_are_made_for_it(shop: Shop, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.write_text("x")  # a folder without rights would hold up nobody who is root
    for place, why in ((shop.repository.folder, "already"), (locked / "releases", "cannot be read or written")):
        with pytest.raises(ReleaseError, match=why):
            ReleaseRepository.check_place(place, tmp_path / "safe2", tmp_path / "online2")
    free = tmp_path / "free" / "releases"
    with pytest.raises(ReleaseError, match="lies in the repository"):
        ReleaseRepository.check_place(free, tmp_path / "safe2", free / "online")
    ReleaseRepository.check_place(free, tmp_path / "safe2", tmp_path / "online2")
    assert ReleaseRepository.create(free, shop.keys, clock=shop.clock).list() == ()


def test_a_copy_without_empty_folders_is_written_to(shop: Shop) -> None:
    shop.publish(1)
    (shop.repository.folder / "parts").rmdir()
    shop.publish(2)
    assert len(shop.repository.list()) == 2


def test_keys_are_their_owners_alone_and_show_nothing(shop: Shop, tmp_path: Path) -> None:
    for path in (*(tmp_path / "safe").iterdir(), *(tmp_path / "online").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_size == 32
        assert path.read_bytes().hex() not in repr(shop.keys)
    assert {path.name for path in (tmp_path / "online").iterdir()} == {"online.key"}
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(shop.keys)


def test_keys_are_never_overwritten_nor_guessed(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never overwritten"):
        ReleaseKeys.create(tmp_path / "safe", tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    with pytest.raises(ConfigError, match="online key there is never overwritten"):
        ReleaseKeys.create(tmp_path / "fresh", tmp_path / "online")
    assert list((tmp_path / "fresh").iterdir()) == [], "or the next try would be refused"
    with pytest.raises(ReleaseError, match="a folder of their own"):
        ReleaseKeys.create(tmp_path / "one", tmp_path / "one")
    with pytest.raises(ReleaseError, match="name the folder of keys"):
        ReleaseKeys.read(tmp_path / "one", tmp_path)
    ReleaseKeys.create(tmp_path / "other", tmp_path / "other-online")
    with pytest.raises(ReleaseError, match="another folder has another one"):
        ReleaseKeys.read(tmp_path / "safe", tmp_path / "other")
    (tmp_path / "other" / "root.key").unlink()
    shutil.copy(tmp_path / "safe" / "targets.key", tmp_path / "other" / "targets.key")
    assert ReleaseKeys.read(tmp_path / "safe", tmp_path / "other").targets is not None
    assert shop.keys.online is not None
    read = ReleaseKeys.read(tmp_path / "online")
    assert (read.root, read.targets) == (None, None)
    assert read.online is not None
    assert read.online.public == shop.keys.online.public


def test_a_key_that_others_can_read_is_refused(shop: Shop, tmp_path: Path) -> None:
    assert shop.keys
    (tmp_path / "online" / "online.key").chmod(0o644)
    with pytest.raises(ConfigError, match="online key"):
        ReleaseKeys.read(tmp_path / "online")


def test_a_repository_is_not_made_where_something_is(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (shop.repository.folder, tmp_path / "file"):
        with pytest.raises(ReleaseError, match="already"):
            ReleaseRepository.create(place, shop.keys, clock=shop.clock)
    (tmp_path / "empty").mkdir()
    assert ReleaseRepository.create(tmp_path / "empty", shop.keys, clock=shop.clock).list() == ()
