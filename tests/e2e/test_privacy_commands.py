"""The commands `privacy ...` as an officer and a script use them: real processes, real files."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hushrec.vault import Vault
from hushrec.vault_ledger import VaultLedgerStore
from hushrec_privacy.key_files import create_key
from hushrec_privacy.ledger import Ledger, ParticipationRecord, SqliteLedgerStore
from hushrec_privacy.ledger.device_cost import device_guarantee, participation_rho
from hushrec_privacy.ledger.openings import counts_opening, plan_opening, run_id
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.signing import verified_plan

from tests import fleet_plans
from tests.e2e.commands import hushrec
from tests.participations import a_plan, joined, take_part
from tests.tiny_bundle import write_tiny_bundle

CONTRACT = {"epsilon", "delta", "adjacency", "assumptions"}
BANDED = ("--rounds", 2000, "--bands", 200, "--min-separation", 200, "--participations", 10)
AUTHORITY = ("--authority", fleet_plans.AUTHORITY)
FLEET = ("--population", 200_000, "--cohort", 1000, "--rounds", 2000, "--delta", 1e-6)


def told(*arguments: object, code: int = 0) -> dict[str, object]:
    """The one JSON object of a command."""
    done = hushrec("privacy", *arguments, "--json")
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("arguments", "epsilon", "adjacency"),
    [
        (("gaussian", "--noise-multiplier", 8.35, "--participations", 2, "--delta", 1e-10), 0.9935499, "zero-out"),
        (("banded-toeplitz", "--noise-multiplier", 10, *BANDED, "--delta", 1e-6), 2.3764889, "zero-out"),
        (
            ("poisson-gaussian", "--noise-multiplier", 1, "--sampling-rate", 0.01, "--steps", 1000, "--delta", 1e-6),
            2.1245,
            "add-or-remove",
        ),
    ],
)
def test_epsilon_of_each_mechanism(arguments: tuple[object, ...], epsilon: float, adjacency: str) -> None:
    found = told("epsilon", "--mechanism", *arguments)
    assert found.keys() >= CONTRACT
    assert found["epsilon"] == pytest.approx(epsilon, rel=1e-4)
    assert found["adjacency"] == adjacency
    assert found["assumptions"]


def test_the_banded_sensitivity_is_told() -> None:
    found = told("epsilon", "--mechanism", "banded-toeplitz", "--noise-multiplier", 10, *BANDED, "--delta", 1e-6)
    assert found["sensitivity_squared"] == pytest.approx(27.5238497, rel=1e-8)


@pytest.mark.parametrize(
    ("z", "delta", "mechanism"),
    [
        (0, 1e-6, ("gaussian", "--participations", 1)),
        (1, 0, ("gaussian", "--participations", 1)),
        (1, 0, ("banded-toeplitz", *BANDED)),
        (0, 1e-6, ("poisson-gaussian", "--sampling-rate", 0.1, "--steps", 3)),
    ],
)
def test_no_guarantee_is_the_word_inf(z: float, delta: float, mechanism: tuple[object, ...]) -> None:
    found = told("epsilon", "--mechanism", *mechanism, "--noise-multiplier", z, "--delta", delta)
    assert found["epsilon"] == "inf"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--noise-multiplier", "nan", "--participations", 1, "--delta", 1e-6),
        ("--noise-multiplier", -1, "--participations", 1, "--delta", 1e-6),
        ("--noise-multiplier", 1, "--participations", -1, "--delta", 1e-6),
        ("--noise-multiplier", 1, "--participations", 1, "--delta", "nan"),
        ("--noise-multiplier", 1, "--participations", 1, "--delta", -1e-6),
        ("--noise-multiplier", 1, "--participations", 1, "--delta", 1),
        ("--noise-multiplier", 1, "--delta", 1e-6),
        ("--noise-multiplier", 1, "--participations", 1, "--delta", 1e-6, "--steps", 3),
        ("--noise-multiplier", "many", "--participations", 1, "--delta", 1e-6),
        ("--noise-multiplier", 1, "--participations", 10**400, "--delta", 1e-6),
    ],
)
def test_wrong_input_is_wrong_usage(arguments: tuple[object, ...]) -> None:
    done = hushrec("privacy", "epsilon", "--mechanism", "gaussian", *arguments, "--json")
    assert done.returncode == 2
    assert not done.stdout
    assert "Traceback" not in done.stderr


def test_a_table_for_people_names_what_must_hold() -> None:
    done = hushrec(
        *("privacy", "epsilon", "--mechanism", "gaussian", "--noise-multiplier", 1),
        *("--participations", 3, "--delta", 1e-6),
    )
    assert "zero-out" in done.stdout
    assert "It holds only if" in done.stderr


def test_from_a_plan_to_a_signature_to_a_ledger_to_a_report(tmp_path: Path) -> None:
    plan_file, key = tmp_path / "plan.json", tmp_path / "plan.key"
    found = told("plan", *FLEET, "--epsilon", 2, *AUTHORITY, "--out", plan_file, "--html", tmp_path / "plan.html")
    assert found.keys() >= CONTRACT
    assert 1.99 < float(str(found["epsilon"])) <= 2
    assert float(str(found["amplification_would_falsely_promise"])) < 0.2
    signed = told("sign", plan_file, "--key", key, "--new-key")
    signature = Path(str(signed["signature"])).read_bytes()
    plan = verified_plan(plan_file.read_bytes(), signature, bytes.fromhex(str(signed["public_key"])))
    assert plan.plan_id == found["plan_id"] == signed["plan_id"]

    path = tmp_path / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        ledger = Ledger.begin(store)
        ledger.open_plan(plan_opening(plan))
        for number in (1, 2, 7):
            ledger.spend(plan.plan_id, number)
    reported = told("report", path, "--html", tmp_path / "report.html")
    assert reported.keys() >= CONTRACT
    assert reported["delta"] == 1e-6, "of the plan in the ledger"
    assert 0 < float(str(reported["epsilon"])) < 2
    for page in ("plan.html", "report.html"):
        text = (tmp_path / page).read_text(encoding="utf-8")
        assert text.count("<svg") == 2 if page == "plan.html" else "<svg" in text
        assert "http" not in text

    verified = told("ledger", "verify", path)
    assert verified["entries"] == 5
    assert told("ledger", "verify", path, "--anchor", verified["head"])["anchored"] is True
    entries = told("ledger", "show", path)["entries"]
    assert isinstance(entries, list)
    assert [entry["kind"] for entry in entries] == ["genesis", "open", "spend", "spend", "spend"]


def test_an_edited_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store, lifetime_rho="0.5")
    for name in tmp_path.iterdir():
        data = name.read_bytes()
        name.write_bytes(data.replace(b'"0.5"', b'"9.5"'))
    done = hushrec("privacy", "ledger", "verify", path)
    assert done.returncode == 9
    assert "Traceback" not in done.stderr


def test_a_device_prints_its_receipt_and_finds_an_older_record_by_it(tmp_path: Path) -> None:
    path, opened = tmp_path / "participation.db", joined(a_plan())
    record = ParticipationRecord.at(path, lifetime_rho="1")
    take_part(record, opened, [3])
    older = path.read_bytes()
    record.participate(opened.plan, 41, rho=participation_rho(opened, 1))
    record.close()
    page = tmp_path / "receipt.html"
    found = told("receipt", path, "--html", page)
    assert found.keys() >= CONTRACT
    assert found["epsilon"] == device_guarantee(opened, 2).epsilon
    text = page.read_text(encoding="utf-8")
    assert "Privacy receipt of this device" in text
    assert str(found["head"]) in text
    assert "http" not in text
    done = hushrec("privacy", "receipt", path)
    assert done.stdout.startswith("# Privacy receipt of this device: epsilon ")
    assert "| 3, 41 |" in done.stdout
    kept = tmp_path / "head.txt"
    kept.write_text(f"{found['head']}\n", encoding="utf-8")
    for anchor in (found["head"], kept):
        assert told("receipt", path, "--anchor", anchor)["anchored"] is True
    path.write_bytes(older)
    for anchor in (found["head"], kept):
        refused = hushrec("privacy", "receipt", path, "--anchor", anchor)
        assert refused.returncode == 9
        assert "older copy" in refused.stderr


def test_a_record_in_a_vault_is_read_with_its_key_and_with_no_other(tmp_path: Path) -> None:
    key, path, opened = tmp_path / "vault.key", tmp_path / "vault.db", joined(a_plan())
    with Vault.open(path, create_key(key, "vault key")) as vault:
        take_part(ParticipationRecord.begin(VaultLedgerStore(vault), lifetime_rho="1"), opened, [3])
    found = told("receipt", path, "--vault-key", key)
    assert found["epsilon"] == device_guarantee(opened, 1).epsilon
    assert told("receipt", path, "--vault-key", key, "--anchor", found["head"])["anchored"] is True
    assert told("ledger", "verify", path, "--vault-key", key)["head"] == found["head"]
    entries = told("ledger", "show", path, "--vault-key", key)["entries"]
    assert [entry["kind"] for entry in entries] == ["genesis", "open", "spend"]  # type: ignore[attr-defined]
    create_key(tmp_path / "other.key", "vault key")
    for command in (("receipt",), ("ledger", "verify"), ("ledger", "show")):
        refused = hushrec("privacy", *command, path, "--vault-key", tmp_path / "other.key")
        assert refused.returncode == 14
        assert "the key is not its own" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_report_takes_the_ledgers_of_several_runs(tmp_path: Path) -> None:
    paths = []
    for nonce in ("a", "b"):
        opened = counts_opening(run_id(nonce=nonce), noise_multiplier=4.0, releases=1, delta=1e-6)
        paths.append(tmp_path / f"{nonce}.db")
        with SqliteLedgerStore.create(paths[-1]) as store:
            ledger = Ledger.begin(store)
            ledger.open_plan(opened)
            ledger.spend(opened.plan, 1)
    one: dict[str, Any] = told("report", paths[0])
    both: dict[str, Any] = told("report", *paths)
    assert one["epsilon"] < both["epsilon"] < 2 * one["epsilon"]
    assert both["head"].split()[0] == one["head"]
    refused = hushrec("privacy", "report", *paths, "--anchor", one["head"])
    assert (refused.returncode, "for one ledger" in refused.stderr) == (2, True)
    assert hushrec("privacy", "report", paths[0], paths[0]).returncode == 2


def test_a_receipt_is_no_report_of_a_shop_s_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store).open_plan(plan_opening(a_plan()))
    done = hushrec("privacy", "receipt", path)
    assert done.returncode == 9
    assert "hushrec privacy report" in done.stderr


@pytest.mark.parametrize("anchor", ["41:5f0c", "missing.txt", "text.txt", "."])
def test_an_anchor_that_is_none_is_refused(tmp_path: Path, anchor: str) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store)
    (tmp_path / "text.txt").write_text("not a head", encoding="utf-8")
    for command in (("ledger", "verify"), ("report",), ("receipt",)):
        done = hushrec("privacy", *command, path, "--anchor", anchor, cwd=tmp_path)
        assert done.returncode == (2 if ":" in anchor else 9), done.stderr
        assert "anchor" in done.stderr


@pytest.mark.parametrize("command", [("report",), ("receipt",), ("ledger", "verify"), ("ledger", "show")])
def test_what_is_no_ledger_is_refused(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "text").write_text("not a ledger")
    (tmp_path / "empty").touch()
    for name in ("text", "empty", "missing", "."):
        done = hushrec("privacy", *command, tmp_path / name)
        assert done.returncode == 9, (name, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_plan_that_counts_is_made_from_its_schema(tmp_path: Path) -> None:
    schema, plan_file = tmp_path / "counts.json", tmp_path / "plan.json"
    segment = {"name": "trending", "length": 50, "clip": "3", "purpose": "which items were looked at", "days": 7}
    schema.write_text(json.dumps({"purpose": "counts", "schema": [segment]}), encoding="utf-8")
    told("plan", *FLEET, "--epsilon", 2, "--vector", schema, *AUTHORITY, "--out", plan_file)
    plan = Plan.decode(plan_file.read_bytes())
    assert (plan.purpose, plan.parameters, plan.bands, plan.parts) == ("counts", 50, 1, "none")
    assert plan.schema[0].to_dict() == segment
    assert plan.authority == fleet_plans.AUTHORITY
    schema.write_text(json.dumps({"purpose": "counts", "schema": [{**segment, "clip": 3}]}), encoding="utf-8")
    done = hushrec("privacy", "plan", *FLEET, "--epsilon", 2, "--vector", schema)
    assert (done.returncode, "clip of a row" in done.stderr) == (2, True), done.stderr


def test_a_damaged_plan_and_an_open_key_are_refused(tmp_path: Path) -> None:
    plan_file, key = tmp_path / "plan.json", tmp_path / "plan.key"
    told("plan", *FLEET, "--epsilon", 2, *AUTHORITY, "--out", plan_file)
    assert "make the first one here with --new-key" in hushrec("privacy", "sign", plan_file, "--key", key).stderr
    told("sign", plan_file, "--key", key, "--new-key")
    before = plan_file.read_bytes()
    again = hushrec("privacy", "plan", *FLEET, "--epsilon", 2, *AUTHORITY, "--out", plan_file)
    assert (again.returncode, plan_file.read_bytes()) == (2, before), "a signed plan is never overwritten"
    assert hushrec("privacy", "sign", plan_file, "--key", key, "--new-key").returncode == 2, "never overwritten"
    key.chmod(0o644)
    assert "chmod 600" in hushrec("privacy", "sign", plan_file, "--key", key).stderr
    key.chmod(0o600)
    plan_file.write_bytes(plan_file.read_bytes().replace(b'"rounds":2000', b'"rounds":1999'))
    assert hushrec("privacy", "sign", plan_file, "--key", key).returncode == 10
    assert Plan.decode(plan_file.read_bytes()).rounds == 1999


@pytest.mark.parametrize(
    "arguments",
    [
        (*FLEET,),
        (*FLEET, "--epsilon", 1, "--noise-multiplier", 1),
        (*FLEET, "--epsilon", "nan"),
        (*FLEET, "--noise-multiplier", -3),
        (*FLEET, "--epsilon", 0),
        (*FLEET, "--epsilon", 1, "--min-separation", 201),
        (*FLEET, "--noise-multiplier", 1e308),
        (*FLEET, "--noise-multiplier", 1e-307),
        (*FLEET, "--epsilon", 1, "--parameters", 10**400),
        (*FLEET, "--epsilon", 1, "--clip-norm", 0),
        (*FLEET, "--epsilon", 1, "--parts", "adaptor"),
        (*FLEET, "--epsilon", 1, "--round-minutes", 0),
        (*FLEET, "--epsilon", 1, *AUTHORITY, "--out", "."),
        (*FLEET, "--epsilon", 1, "--out", "plan.json"),
        (*FLEET, "--epsilon", 1, "--authority", "ab"),
        (*FLEET, "--epsilon", 1, "--parameters", 500_001),
        (*FLEET, "--epsilon", 1, "--local-rate", 0),
        (*FLEET, "--epsilon", 1, "--html", ""),
    ],
)
def test_a_plan_that_cannot_be_is_wrong_usage(arguments: tuple[object, ...]) -> None:
    done = hushrec("privacy", "plan", *arguments, "--json")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_parts_other_than_the_adapter_need_their_numbers_as_inspect_tells_them(tmp_path: Path) -> None:
    arguments = ("privacy", "plan", *FLEET, "--epsilon", 1, "--parts", "encoder")
    refused = hushrec(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    told_where = re.sub(r"\s+", " ", refused.stderr)
    assert "--parts encoder needs --parameters" in told_where
    assert "hushrec inspect BUNDLE names them beside 'trains on devices'" in told_where
    shown = hushrec("inspect", write_tiny_bundle(tmp_path / "shop.hush")).stdout
    named = re.search(r"trains on devices\t.*\bencoder ([\d,]+),", shown)
    assert named is not None
    assert hushrec(*arguments, "--parameters", named[1].replace(",", "")).returncode == 0


def test_the_card_of_a_private_bundle_promises_nothing(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "shop.hush")
    facts = told("card", bundle)
    assert facts["epsilon"] == "inf"
    assert math.isfinite(float(str(facts["delta"])))
    done = hushrec("privacy", "card", bundle)
    assert done.stdout.startswith("# Privacy of this model: no guarantee for this bundle\n")
    hushrec("privacy", "card", bundle, "--out", tmp_path / "privacy.md")
    assert (tmp_path / "privacy.md").read_text(encoding="utf-8") == done.stdout


def test_the_shop_s_own_facts_come_from_a_file(tmp_path: Path) -> None:
    bundle, facts = write_tiny_bundle(tmp_path / "shop.hush"), tmp_path / "shop.json"
    facts.write_text('{"name": "Mugs", "region": "Peru"}', encoding="utf-8")
    done = hushrec("privacy", "card", bundle, "--shop", facts)
    assert "| Name | Mugs |" in done.stdout
    assert "published" in done.stderr, "what is missing is said"
    assert "region" not in done.stderr
    assert told("card", bundle, "--shop", facts)["region"] == "Peru"
    facts.write_text('{"epsilon": "0.1"}', encoding="utf-8")
    assert hushrec("privacy", "card", bundle, "--shop", facts).returncode == 2


def test_a_signature_replaces_neither_key_nor_plan(tmp_path: Path) -> None:
    plan_file, key = tmp_path / "plan.json", tmp_path / "plan.key"
    told("plan", *FLEET, "--epsilon", 2, *AUTHORITY, "--out", plan_file)
    for out in (key, plan_file, tmp_path / "missing" / "plan.sig"):
        done = hushrec("privacy", "sign", plan_file, "--key", key, "--new-key", "--out", out)
        assert done.returncode == 2, done.stderr
        assert not key.exists(), "no key is made for a signature that has no place"
    told("sign", plan_file, "--key", key, "--new-key")
    secret = key.read_bytes()
    assert hushrec("privacy", "sign", plan_file, "--key", key, "--out", key).returncode == 2
    assert key.read_bytes() == secret


def test_a_plan_whose_rounds_are_over_is_not_signed_and_of_one_that_has_begun_it_is_said(tmp_path: Path) -> None:
    key, over, begun = (tmp_path / name for name in ("plan.key", "over.json", "begun.json"))
    hours = ("--epsilon", 2, *AUTHORITY, "--round-minutes", 60)
    told("plan", *FLEET, *hours, "--first-round", "2020-01-01", "--out", over)  # of 2,000 hours
    told("plan", *FLEET, *hours, "--out", begun)
    done = hushrec("privacy", "sign", over, "--key", key, "--new-key")
    assert (done.returncode, key.exists()) == (10, False)
    assert "all 2000 rounds of the plan are over" in done.stderr
    done = hushrec("privacy", "sign", begun, "--key", key, "--new-key")
    assert "is on; a round whose time is over is lost" in done.stderr


def test_a_demonstration_says_so_wherever_it_is_told(tmp_path: Path) -> None:
    fleet = ("--population", 100, "--cohort", 5, "--rounds", 10, "--delta", 1e-6, "--epsilon", 2)
    plan_file, key, page = tmp_path / "plan.json", tmp_path / "plan.key", tmp_path / "plan.html"
    assert told("plan", *fleet, *AUTHORITY, "--out", plan_file, "--html", page)["demo"] is True
    assert "DEMO" in page.read_text(encoding="utf-8")
    assert "DEMO" in hushrec("privacy", "plan", *fleet).stdout
    assert told("sign", plan_file, "--key", key, "--new-key")["demo"] is True
    assert "DEMO" in hushrec("privacy", "sign", plan_file, "--key", key).stderr
    plan_file.write_bytes(plan_file.read_bytes().replace(b'"demo":true', b'"demo":false'))
    assert hushrec("privacy", "sign", plan_file, "--key", key).returncode == 10


def test_a_promise_of_next_to_nothing_is_called_so() -> None:
    fleet = ("--population", 20_000, "--cohort", 1000, "--rounds", 10)
    assert "delta is not below" in hushrec("privacy", "plan", *fleet, "--delta", 0.9, "--epsilon", 2).stderr
    assert "above 10" in hushrec("privacy", "plan", *fleet, "--delta", 1e-6, "--epsilon", 50).stderr


def test_what_is_printed_is_never_below_what_holds() -> None:
    options = ("--mechanism", "gaussian", "--noise-multiplier", 1, "--participations", 3, "--delta", 1e-6)
    printed = hushrec("privacy", "epsilon", *options).stdout.splitlines()[1].split("\t")[1]
    assert float(printed) >= float(str(told("epsilon", *options)["epsilon"]))


@pytest.mark.skipif(os.name != "posix", reason="modes and pipes are those of POSIX")
def test_a_key_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.json"
    told("plan", *FLEET, "--epsilon", 2, *AUTHORITY, "--out", plan_file)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert hushrec("privacy", "sign", plan_file, "--key", tmp_path / "pipe", timeout_s=60).returncode == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_ledger_without_rights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store)
    path.chmod(0)
    assert hushrec("privacy", "report", path).returncode == 9


def test_help_names_every_command() -> None:
    text = hushrec("privacy", "--help").stdout
    assert all(name in text for name in ("epsilon", "plan", "sign", "report", "receipt", "card", "ledger"))


def test_an_audit_of_training_tells_claim_bound_and_power() -> None:
    found = told("audit", "training", "--epsilon", 8, "--canaries", 60)  # too few to refute this, whatever they show
    assert found.keys() >= CONTRACT | {"epsilon_lower", "confidence", "canaries", "guesses", "correct", "power"}
    assert found["refuted"] is False
    assert 7.9 < float(str(found["epsilon"])) <= 8
    assert found["adjacency"] == "add-or-remove"
