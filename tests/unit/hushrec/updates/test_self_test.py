"""A release is tried out before it is used; one that fails is not tried again."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.recommender import Recommender
from hushrec.updates import updater as updater_module
from hushrec.updates.self_test import self_test
from hushrec_privacy.errors import ReleaseError

from tests.release_shop import Server, Shop, serving
from tests.tiny_bundle import tiny_bundle, write_tiny_bundle


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def server(shop: Shop) -> Iterator[Server]:
    with serving(shop.repository.folder) as server:
        yield server


def test_a_good_bundle_passes(tmp_path: Path) -> None:
    self_test(tiny_bundle(tmp_path))


@pytest.mark.parametrize("items", [1, 2, 3, 9])
def test_a_catalogue_with_fewer_items_than_results_passes(tmp_path: Path, items: int) -> None:
    self_test(write_tiny_bundle(tmp_path / "small.hush", items=items))


def test_it_says_the_same_whatever_the_shopper_did(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, filter_seen=True)
    with Recommender.open(bundle, profile=tmp_path / "shopper") as recommender:
        for item in ("item-1", "item-2"):
            recommender.observe(item)
    self_test(bundle)
    assert {path.name for path in bundle.iterdir()} == {*Bundle.open(bundle).manifest.files, "manifest.json"}


def test_scores_that_are_no_numbers_fail(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    poison(bundle, np.nan)
    with pytest.raises(ReleaseError, match="finite"):
        self_test(bundle)


def poison(bundle: Path, value: float) -> None:
    """Put a value for the step of the item table, and hash it all anew: authentic, and useless."""
    import msgspec
    from hushrec.bundle import write_bundle

    opened = Bundle.open(bundle)
    info = opened.manifest.arrays["items.scale"]
    files: dict[str, bytes | Path] = {name: opened.path(name).read_bytes() for name in opened.manifest.files}
    items = bytearray(files["items.bin"])  # type: ignore[arg-type]
    items[info.offset : info.offset + 4 * info.shape[0]] = np.full(info.shape, value, "<f4").tobytes()
    files["items.bin"] = bytes(items)
    manifest = msgspec.structs.replace(opened.manifest, model_version=opened.manifest.model_version + 1)
    write_bundle(bundle, manifest, files, {name: one.origin for name, one in opened.manifest.files.items()})


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([("a", 1.0)] * 10, "1 different|instead of"),
        ([("a", 1.0)], "instead of"),
        ([(str(n), float("inf")) for n in range(10)], "finite"),
    ],
)
def test_bad_answers_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[tuple[str, float]], says: str
) -> None:
    found = [SimpleNamespace(item=item, score=score) for item, score in answers]
    monkeypatch.setattr(Recommender, "recommend", lambda *_, **__: found)
    with pytest.raises(ReleaseError, match=says):
        self_test(tiny_bundle(tmp_path))


def test_two_answers_to_one_question_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def moody(*_: Any, **__: Any) -> list[SimpleNamespace]:
        asked.append(1)
        return [SimpleNamespace(item=str(n), score=float(len(asked))) for n in range(10)]

    monkeypatch.setattr(Recommender, "recommend", moody)
    with pytest.raises(ReleaseError, match="two answers"):
        self_test(tiny_bundle(tmp_path))


def test_whatever_the_runtime_raises_is_a_release_that_does_not_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("item-17 is secret")

    monkeypatch.setattr(Recommender, "recommend", broken)
    with pytest.raises(ReleaseError, match=r"does not work here \(RuntimeError\)") as failed:
        self_test(tiny_bundle(tmp_path))
    assert "item-17" not in failed.value.message


def test_a_release_that_fails_is_not_tried_again_until_a_higher_one_comes(shop: Shop, server: Server) -> None:
    shop.publish(1)
    device = shop.updater(server.url)
    device.fetch()
    bad = shop.bundle(1, seed=3)
    poison(bad, np.nan)  # is version 2 now
    shop.repository.publish(bad, ledger_head=None, demo=False)
    with pytest.raises(ReleaseError, match="does not work here"):
        device.fetch()
    assert Bundle.open(device.current()).manifest.model_version == 1
    assert not (shop.folder / "device" / "releases" / "2").exists()
    server.asked.clear()
    for again in (device, shop.updater(server.url)):
        assert again.check() is None
        assert again.fetch() is None
    assert not [path for path in server.asked if "/blobs/" in path]
    shop.publish(3)
    assert device.fetch() is not None


def test_a_release_that_ends_the_process_is_given_up_after_three_tries(
    shop: Shop, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing can handle it."""

    def killer(_: Path) -> None:
        raise Killed

    shop.publish(1)
    shop.updater(server.url).fetch()
    shop.publish(2, seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(updater_module, "self_test", killer)
        for _ in range(updater_module.MAX_TRIES):
            with pytest.raises(Killed):
                shop.updater(server.url).fetch()
            assert Bundle.open(shop.updater(server.url).current()).manifest.model_version == 1
        with pytest.raises(ReleaseError, match="ended the process 3 times"):
            shop.updater(server.url).fetch()
    assert shop.updater(server.url).fetch() is None
    shop.publish(3)
    assert shop.updater(server.url).fetch() is not None
