"""The public surface has the types that an app's own checker will see; mypy reads this file, and pytest runs it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from hushrec import (
    Bundle,
    BundleError,
    Catalog,
    HushrecError,
    Item,
    Profile,
    Reason,
    ReasonCode,
    Recommendation,
    Recommender,
    pack,
    unpack,
)
from hushrec.profile import Event
from numpy.typing import NDArray

from tests.tiny_bundle import tiny_bundle


def test_the_types_of_the_public_surface(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    with Recommender.open(str(root), profile=tmp_path / "p", verify=True, clock=lambda: datetime.now(UTC)) as rec:
        assert_type(rec, Recommender)
        assert_type(rec.catalog, Catalog)
        assert_type(rec.profile, Profile)
        assert_type(rec.bundle, Bundle)
        rec.observe("item-1", "purchase", at=datetime.now(UTC))
        found = rec.recommend(k=3, exclude_seen=False, within={"category": "Mugs", "brand": ["Brand 1", "Brand 3"]})
        assert_type(found, list[Recommendation])
        assert_type(found[0].item, str)
        assert_type(found[0].score, float)
        assert_type(found[0].reason, Reason)
        assert_type(found[0].reason.code, ReasonCode)
        assert_type(found[0].reason.items, tuple[str, ...])
        assert_type(rec.unknown_items(), dict[str, int])
        assert_type(rec.catalog.get("item-1"), Item | None)
        assert_type(rec.catalog.values("category"), list[str])
        assert_type(rec.catalog.mask({}), NDArray[np.bool_])
        assert_type(rec.profile.events(), list[Event])
        assert_type(rec.profile.flush(), None)
        assert_type(rec.bundle.array("popularity"), NDArray[Any])
    assert_type(unpack(pack(root, tmp_path / "z"), tmp_path / "out"), Bundle)
    assert_type(BundleError("x").code, str)
    assert issubclass(BundleError, HushrecError)
