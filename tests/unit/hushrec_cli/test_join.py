"""`hushrec join` tells what happens, a line a change, and ends when there is nothing to do."""

from pathlib import Path

import pytest
from hushrec.fleet import FleetStatus, Refusal
from hushrec_cli import join
from hushrec_privacy.errors import ConfigError, EnrolmentError

IDLE = FleetStatus("waiting", 0, 0, None, "1", 3)


class FakeClient:
    """Goes through states, one a step."""

    def __init__(self, *steps: tuple[float, FleetStatus]) -> None:
        self.steps, self.now = list(steps), IDLE

    def step(self) -> float:
        if not self.steps:
            raise KeyboardInterrupt
        wait, self.now = self.steps.pop(0)
        return wait

    def status(self) -> FleetStatus:
        return self.now


def played(*steps: tuple[float, FleetStatus], once: bool = True) -> tuple[FleetStatus, list[str], int]:
    client, lines = FakeClient(*steps), list[str]()
    ended = join.take_part(client, lines.append, once=once)  # type: ignore[arg-type]
    return ended, lines, len(client.steps)


@pytest.fixture(autouse=True)
def sleepless(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("hushrec_cli.join.time.sleep", slept.append)
    return slept


def test_each_change_is_one_line_and_once_ends_with_the_first_round() -> None:
    ended, lines, left = played(
        (0, IDLE._replace(model_version=4)),
        (0, IDLE._replace(model_version=4, state="round", phase=1)),
        (2, IDLE._replace(model_version=4, state="round", phase=1)),
        (0, IDLE._replace(model_version=4, state="round", phase=4)),
        (0, IDLE._replace(model_version=4, rounds=1, rho_left="0.5")),
        (0, IDLE),
    )
    assert lines == [
        "model: release 4",
        "in a round: advertise, message 1 of 6",
        "in a round: mask, message 4 of 6",
        "done: round 1 since the start; rho 0.5 is left for this device's lifetime",
    ]
    assert (ended.rounds, left) == (1, 1)


def test_a_refusal_is_one_line_and_once_ends_when_there_is_nothing_to_do() -> None:
    refused = IDLE._replace(refusal=Refusal("demo", "the plan is a DEMO and protects nobody; it is ignored"))
    ended, lines, left = played((0, refused), (300, refused), (0, IDLE))
    assert lines == ["not now (demo): the plan is a DEMO and protects nobody; it is ignored"]
    assert (ended, left) == (refused, 1)


def test_without_once_it_goes_on_until_somebody_interrupts(sleepless: list[float]) -> None:
    ended, _, _ = played((0, IDLE._replace(rounds=1)), (3600, IDLE._replace(rounds=1)), once=False)
    assert ended.rounds == 1
    assert max(sleepless) <= 5


def test_a_token_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match="--token"):
        join._token(None, "ab" * 32)
    with pytest.raises(ConfigError, match=r"token\.txt: does not exist; it should hold the token"):
        join._token(tmp_path / "token.txt", "ab" * 32)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        join._token(tmp_path, "ab" * 32)
    (tmp_path / "token.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is no login token"):
        join._token(tmp_path / "token.txt", "ab" * 32)
    (tmp_path / "token.txt").write_text("AbC\n")
    assert join._token(tmp_path / "token.txt", "ab" * 32) == "AbC"


def test_the_vault_s_key_is_made_once_and_read_then(tmp_path: Path) -> None:
    made = join._vault_key(tmp_path / "vault.key")
    assert join._vault_key(tmp_path / "vault.key") == made
    assert len(made) == 32
