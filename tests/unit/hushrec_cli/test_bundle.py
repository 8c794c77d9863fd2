"""`hushrec inspect` shows what a bundle's card holds as a person reads it, and `--json` as it is."""

import json
from pathlib import Path

import msgspec
import pytest
from hushrec.bundle import Bundle, write_bundle
from hushrec_cli.bundle import inspect

from tests.tiny_bundle import tiny_bundle

CARD: dict[str, object] = {
    "headline": "no guarantee for this bundle",
    "test_from": None,
    "verification": {"queries": 1997, "worst_score_error": 1.25e-05, "passed": True},
    "privacy": {"assumptions": ["one user, one device", "honest noise"], "events": [{"sigma": 2.5}, {"sigma": 3}]},
    "steps": [],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    first = Bundle.open(tiny_bundle(tmp_path))
    files: dict[str, Path | bytes] = {name: first.path(name) for name in first.manifest.files}
    origins = {name: info.origin for name, info in first.manifest.files.items()}
    told = msgspec.structs.replace(first.manifest, card=CARD)
    return write_bundle(tmp_path / "told.hush", told, files, origins).root


def test_a_card_is_shown_line_by_line_without_python_s_notation(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(bundle)
    out = capsys.readouterr().out
    lines = dict(line.split("\t")[:2] for line in out.splitlines() if line.startswith("card: "))
    assert lines == {
        "card: test from": "",
        "card: verification: queries": "1997",
        "card: verification: worst score error": "1.25e-05",
        "card: verification: passed": "yes",
        "card: privacy: assumptions": "one user, one device; honest noise",
        "card: privacy: events 1: sigma": "2.5",
        "card: privacy: events 2: sigma": "3",
        "card: steps": "",
    }
    assert "None" not in out
    assert "{" not in out


def test_json_has_the_card_as_it_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(bundle, as_json=True)
    assert json.loads(capsys.readouterr().out)["card"] == CARD
