"""`hushrec join` tells what happens, a line a change, and ends when there is nothing to do."""

import os
import signal
from pathlib import Path

import pytest
from hushrec.fleet import FleetStatus, Refusal
from hushrec_cli import join
from hushrec_privacy.enrolment import login_token
from hushrec_privacy.errors import ConfigError, EnrolmentError

IDLE = FleetStatus("waiting", 0, 0, None, "1", 3)


class FakeClient:
    """Goes through states, one a step."""

    bundle = Path("ann.profile.fleet/releases/releases/4")

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
        "model: release 4, the bundle ann.profile.fleet/releases/releases/4",
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


def test_a_message_that_is_refused_again_and_again_is_told_once() -> None:
    refused = IDLE._replace(refusal=Refusal("taken", "this device has a place in the round"))
    again = refused._replace(state="round", phase=1)
    _, lines, _ = played(
        (0, IDLE._replace(state="round", phase=1)),
        (2, refused),
        (0, again),
        (2, refused),
        (0, again),
        (0, refused._replace(state="round", phase=2)),
        (0, IDLE._replace(rounds=1)),
        (0, IDLE._replace(rounds=1, state="round", phase=1)),
        once=False,
    )
    assert lines == [
        "in a round: advertise, message 1 of 6",
        "not now (taken): this device has a place in the round",
        "in a round: choose, message 2 of 6",
        "done: round 1 since the start; rho 1 is left for this device's lifetime",
        "in a round: advertise, message 1 of 6",
    ]


def test_a_service_that_is_told_to_end_ends_as_by_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # or a failure would end the tests
    try:
        monkeypatch.setattr(FakeClient, "step", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        monkeypatch.setattr("hushrec_cli.join.time.sleep", lambda _: pytest.fail("it went on"))
        ended, _, _ = played(once=False)
        assert ended == IDLE
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_once_it_goes_on_until_somebody_interrupts(sleepless: list[float]) -> None:
    ended, _, _ = played((0, IDLE._replace(rounds=1)), (3600, IDLE._replace(rounds=1)), once=False)
    assert ended.rounds == 1
    assert max(sleepless) <= 5


def test_of_several_tokens_the_newest_that_is_for_the_plan_is_given(tmp_path: Path) -> None:
    one, other = "ab" * 32, "cd" * 32
    tokens = [login_token(bytes(32), "ann", plan, end) for plan, end in ((one, 1), (other, 2), (one, 3))]
    (tmp_path / "tokens.txt").write_text("\n".join(tokens) + "\n")
    assert join._token(tmp_path / "tokens.txt", one) == tokens[2]
    assert join._token(tmp_path / "tokens.txt", other) == tokens[1]


def test_a_token_that_is_missing_names_the_plan_and_a_file_that_is_no_text_its_path(tmp_path: Path) -> None:
    plan, path = "ab" * 32, tmp_path / "tokens.txt"
    with pytest.raises(EnrolmentError, match=f"--token for plan {plan}"):
        join._token(None, plan)
    with pytest.raises(ConfigError, match=r"tokens\.txt: does not exist; it should hold tokens"):
        join._token(path, plan)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        join._token(tmp_path, plan)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="holds no login tokens"):
        join._token(path, plan)
    path.write_text('{"format": 1, "cohort": 200}\n')
    with pytest.raises(ConfigError, match="holds no login tokens; it should hold tokens of the shop's login"):
        join._token(path, plan)
    path.write_text(f"AbC\n{login_token(bytes(32), 'ann', 'cd' * 32, 1)}\n")
    with pytest.raises(EnrolmentError, match=f"none of its 1 login tokens is for plan {plan}"):
        join._token(path, plan)


def test_the_vault_s_key_is_made_once_and_read_then(tmp_path: Path) -> None:
    made = join._vault_key(tmp_path / "vault.key")
    assert join._vault_key(tmp_path / "vault.key") == made
    assert len(made) == 32
