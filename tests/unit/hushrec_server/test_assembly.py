"""What a start makes, says and refuses: from a configuration to an application, without a socket."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hushrec.messages import path_of
from hushrec_privacy.errors import ConfigError, PlanError
from hushrec_server.assembly import Assembled, assemble
from hushrec_server.config import read_config
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.asgi import ask
from tests.fleet_plans import COUNTS
from tests.server_folder import ServerFolder
from tests.tiny_bundle import tiny_bundle

DAY_S = 86_400
Start = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return ServerFolder.prepare(tmp_path)


@pytest.fixture
def start(folder: ServerFolder) -> Start:
    """Start and end once; gives what was said."""
    return partial(started, folder)


def started(folder: ServerFolder, *plans: Path, later_s: int = 0) -> list[str]:
    said: list[str] = []
    config = read_config(folder.config, plans=plans)
    assemble(config, said.append, clock=lambda: time.time() + later_s).close()
    return said


def of_plan(said: list[str]) -> str:
    """What was said of the one plan that was named."""
    (line,) = [line for line in said if line.startswith("plan ")]
    return line


def test_a_start_says_how_far_its_plan_is_and_a_later_one_takes_it_again_even_when_it_is_over(
    folder: ServerFolder, start: Start
) -> None:
    assert of_plan(start(folder.plan_file)).endswith(" UTC and is on")
    assert of_plan(start(folder.plan_file, later_s=3 * 3_600)).endswith(" UTC, and 3 of 20 rounds are over")
    assert of_plan(start(folder.plan_file, later_s=20 * 3_600)).endswith(" UTC, and all rounds are over")


def with_releases(folder: ServerFolder, bundle: Path | None = None) -> ReleaseRepository:
    """Give a server a repository and the keys to publish, and publish a bundle."""
    keys = ReleaseKeys.create(folder.data / "offline", folder.data / "online")
    (folder.data / "online" / "targets.key").write_bytes((folder.data / "offline" / "targets.key").read_bytes())
    (folder.data / "online" / "targets.key").chmod(0o600)
    repository = ReleaseRepository.create(folder.data / "releases", keys, clock=time.time)
    if bundle is not None:
        repository.publish(bundle, ledger_head=None, demo=False)
    return repository


def test_a_new_plan_for_another_size_than_the_newest_release_s_is_refused_and_a_known_one_is_told_of(
    tmp_path: Path,
) -> None:
    folder = ServerFolder.prepare(tmp_path, parts="encoder", parameters=2_048)
    start = partial(started, folder)
    both = r"the plan trains 2,048 numbers, and encoder of release 1 has 21,897"
    with_releases(folder, tiny_bundle(tmp_path))
    with pytest.raises(PlanError, match=rf"plan\.json: {both}.*--parts encoder --parameters 21897"):
        start(folder.plan_file)
    assert not [line for line in start() if line.startswith("WARNING")], "nothing of it is left"

    (folder.data / "releases").rename(folder.data / "elsewhere")
    start(folder.plan_file)
    (folder.data / "elsewhere").rename(folder.data / "releases")
    (told,) = [line for line in start(folder.plan_file) if line.startswith("WARNING")]
    assert re.search(rf"plan {folder.plan.plan_id[:16]} gets no device: {both}", told)


def test_a_start_says_of_a_named_plan_that_it_is_halted_and_why_or_that_it_has_ended(
    folder: ServerFolder, start: Start
) -> None:
    start(folder.plan_file)
    server = assemble(read_config(folder.config), lambda _: None)
    server.service.halt(folder.plan.plan_id, "the shop wants to look first")
    server.close()
    assert of_plan(start(folder.plan_file)).endswith(
        "; HALTED, opens no round (the shop wants to look first); see docs/runbook.md, A plan is halted"
    )
    over = assemble(read_config(folder.config), lambda _: None, clock=lambda: time.time() + 20 * 3_600)
    over.service.tick()
    over.close()
    assert of_plan(start(folder.plan_file)).endswith("; it has ended; its rounds are over")


def test_a_new_plan_all_of_whose_rounds_are_over_is_refused_and_leaves_nothing(
    folder: ServerFolder, start: Start
) -> None:
    late = replace(folder.plan, first_round_at=folder.plan.first_round_at - 20 * 3_600)
    path = folder.plan_file.with_name("late.json")
    path.write_bytes(late.encode())
    path.with_name("late.json.sig").write_bytes(folder.plan_key.sign(late))
    with pytest.raises(PlanError, match=r"late\.json: all 20 rounds of the plan are over"):
        start(path)
    server = assemble(read_config(folder.config), lambda _: None)
    assert server.service.status()["plans"] == []
    server.close()


def test_without_the_online_key_a_start_says_until_when_devices_take_something_new(
    folder: ServerFolder, start: Start, tmp_path: Path
) -> None:
    online = folder.data / "online"
    keys = ReleaseKeys.create(tmp_path / "safe", online)
    signed_at = 1_801_382_400
    ReleaseRepository.create(folder.data / "releases", keys, clock=lambda: signed_at)
    (online / "targets.key").write_bytes((tmp_path / "safe" / "targets.key").read_bytes())
    (online / "targets.key").chmod(0o600)
    assert not [line for line in start() if "online.key" in line]
    (online / "online.key").rename(tmp_path / "online.key")
    said = start()
    assert any("nothing is published" in line for line in said)
    assert any("devices take nothing new from 2027-02-01 08:00 UTC on" in line for line in said)


def test_metrics_say_when_what_is_signed_runs_out(folder: ServerFolder) -> None:
    keys = ReleaseKeys.create(folder.data / "offline", folder.data / "online")
    repository = ReleaseRepository.create(folder.data / "releases", keys, clock=time.time)
    server = assemble(read_config(folder.config), lambda _: None)
    text = ask(server.app, "GET", path_of("metrics")).body.decode()
    server.close()
    for role, at_s in repository.expires_at().items():
        assert f'hushrec_expires_at{{what="{role}"}} {at_s:.10g}\n' in text
    assert 'hushrec_expires_at{what="envelope-keys"} ' in text


HISTORIES = [
    ('["item-1", "item-2", "item-9"]', ""),
    ('["item-1", "other"]', "no held-out history has two events on items of the catalogue"),
    ('["other", "another"]', "no held-out history has two events on items of the catalogue"),
    ('["other", "another"]\n["item-4", "item-3"]', ""),
]


@pytest.mark.parametrize(("histories", "refused"), HISTORIES)
def test_a_start_refuses_held_out_histories_of_which_the_newest_release_knows_nothing(
    folder: ServerFolder, start: Start, tmp_path: Path, histories: str, refused: str
) -> None:
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(histories, encoding="utf-8")
    with folder.config.open("a", encoding="utf-8") as config:
        config.write('[releases]\nheld_out = "held-out.jsonl"\n')
    repository = with_releases(folder)
    start()  # without a release there is no catalogue
    repository.publish(tiny_bundle(tmp_path), ledger_head=None, demo=False)
    if refused:
        with pytest.raises(ConfigError, match=rf"{held_out}: {refused}"):
            start()
    else:
        start()
    assert not list((folder.data / "masters").glob("part-*"))


def checks(folder: ServerFolder, server: Assembled) -> dict[str, str]:
    """What each check of /readyz says to the administrator; empty: all is well."""
    token = (folder.data / "admin.token").read_text(encoding="ascii").strip()
    answer = ask(server.app, "GET", path_of("ready"), headers={"authorization": f"Bearer {token}"})
    return {check["name"]: check.get("detail", "") for check in json.loads(answer.body)["checks"]}


@pytest.mark.parametrize("name", ["2.snapshot.json", "timestamp.json"])
def test_damaged_releases_are_told_of_by_name_and_the_database_is_ready_all_the_same(
    folder: ServerFolder, tmp_path: Path, name: str
) -> None:
    damaged = with_releases(folder, tiny_bundle(tmp_path)).folder / "metadata" / name
    server = assemble(read_config(folder.config, plans=(folder.plan_file,)), lambda _: None)
    whole = damaged.read_bytes()
    before = checks(folder, server)
    damaged.write_bytes(b"{")
    during = checks(folder, server)
    damaged.write_bytes(whole)
    after = checks(folder, server)
    server.close()
    assert (before["releases"], before["database"]) == ("", "")
    assert during["database"] == ""
    assert during["releases"].startswith(f"{damaged}: is missing or damaged (")
    assert during["releases"].endswith(
        "; put this file back from a copy, and no older copy of the folder: "
        "docs/releases.md, When the folder is damaged"
    )
    assert after == before


def test_a_plan_for_updates_without_releases_is_told_of_at_the_start_and_by_readiness(
    folder: ServerFolder, start: Start
) -> None:
    assert not [line for line in start() if line.startswith("WARNING")]
    server = assemble(read_config(folder.config), lambda _: None)
    assert checks(folder, server)["releases"] == ""
    server.close()

    (told,) = [line for line in start(folder.plan_file) if line.startswith("WARNING")]
    assert f"plan {folder.plan.plan_id[:16]} trains, and devices get no release to start from" in told
    server = assemble(read_config(folder.config), lambda _: None)
    assert checks(folder, server)["releases"] == told.removeprefix("WARNING: ")
    server.service.halt(folder.plan.plan_id)
    assert checks(folder, server)["releases"] == "", "one that is halted waits for nobody"
    server.close()


def test_a_plan_for_counts_needs_no_releases(tmp_path: Path) -> None:
    folder = ServerFolder.prepare(tmp_path, vector=COUNTS)
    assert not [line for line in started(folder, folder.plan_file) if line.startswith("WARNING")]
    server = assemble(read_config(folder.config), lambda _: None)
    assert not any(checks(folder, server)[name] for name in ("database", "envelope-keys", "releases"))
    server.close()


@pytest.mark.parametrize("with_keys", [True, False])
def test_metrics_are_answered_although_the_release_repository_is_damaged(folder: ServerFolder, with_keys: bool) -> None:
    keys = ReleaseKeys.create(folder.data / "offline", folder.data / "online")
    ReleaseRepository.create(folder.data / "releases", keys, clock=time.time)
    if not with_keys:
        (folder.data / "online").rename(folder.data / "elsewhere")
    server = assemble(read_config(folder.config), lambda _: None)
    (folder.data / "releases" / "metadata" / "1.snapshot.json").write_bytes(b"{")
    answer, ready = ask(server.app, "GET", path_of("metrics")), ask(server.app, "GET", path_of("ready"))
    server.close()
    assert answer.status == 200
    text = answer.body.decode()
    assert 'hushrec_expires_at{what="envelope-keys"} ' in text
    assert 'hushrec_expires_at{what="root"} ' not in text, "what cannot be read has no time"
    assert b'{"name":"releases","ok":false}' in ready.body, "this tells of the damage"
