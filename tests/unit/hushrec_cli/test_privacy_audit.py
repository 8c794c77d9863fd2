"""`privacy audit training`: what it prints, and the exit code when the claim is refuted."""

import json

import pytest
import torch
from hushrec_cli.main import app
from hushrec_model.user_step import UserGradients
from typer.testing import CliRunner

TINY = ["privacy", "audit", "training", "--epsilon", "1", "--canaries", "100"]


def test_the_bound_stands_beside_the_claim_and_what_cannot_be_seen() -> None:
    done = CliRunner().invoke(app, TINY)
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert rows["epsilon, claimed"].startswith("0.99")
    assert rows["canaries"] == "100"
    assert "no evidence of privacy" in done.stderr
    assert "never seen" in done.stderr


def test_a_refuted_claim_is_exit_code_1_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UserGradients, "norms", lambda self: torch.zeros(len(self.own), dtype=torch.float64))
    done = CliRunner().invoke(app, [*TINY, "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert told["refuted"] is True
    assert told["epsilon_lower"] > told["epsilon"]
    assert "REFUTED" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["training"],
        ["training", "--epsilon", "nan"],
        ["training", "--epsilon", "-1"],
        ["training", "--epsilon", "1", "--canaries", "1"],
        ["--json", "training", "--epsilon", "1"],
    ],
)
def test_wrong_usage_is_refused(wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["privacy", "audit", *wrong]).exit_code != 0
