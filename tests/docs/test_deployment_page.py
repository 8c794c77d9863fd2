"""docs/deployment.md is run as it stands: every command in a folder of its place, every piece of Python."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hushrec_privacy.enrolment import verified_token
from hushrec_privacy.secagg import Phase, Session, message_size
from hushrec_server.config import TEMPLATE

from tests.e2e.commands import HUSHREC
from tests.learning_bundle import learning_bundle

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console (\w+)(?: (\w+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SOURCES = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ELSEWHERE = {"database"}  # needs a PostgreSQL to make databases in
PLACES = {"office", "authority", "server", "device"}


def test_the_configuration_is_the_one_that_the_server_prints() -> None:
    shown = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown == [TEMPLATE], "put what `hushrec serve --print-config` prints into docs/deployment.md"


def test_the_sizes_are_those_of_the_protocol() -> None:
    for coordinates, told in ((2_048, "34 KB"), (65_536, "161 KB"), (524_288, "1.08 MB")):
        session = Session("ab" * 32, 1, bytes(16), bytes(32), coordinates, 16, 100, "active")
        sent = 2_169 + sum(message_size(session, phase) + 4 + 1_145 for phase in Phase)
        kilobytes = sent / 1e3
        assert told == (f"{kilobytes:.0f} KB" if kilobytes < 1e3 else f"{kilobytes / 1e3:.2f} MB")
        state = 8 * coordinates * 199 / 1e6
        assert f"| {told} | {state:.1f} MB |" in PAGE or f"| {told} | {state:.0f} MB |" in PAGE


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each place, with a bundle in the office."""
    folder = tmp_path_factory.mktemp("deployment")
    for place in sorted(PLACES):
        (folder / place).mkdir()
    learning_bundle(folder / "office" / "shop.hush")
    return folder


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def with_hushrec() -> dict[str, str]:
    """An environment in which `hushrec` is found."""
    return {**os.environ, "PATH": f"{HUSHREC.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def run(commands: str, folder: Path, code: int = 0) -> str:
    """Run what stands in a block; gives what it says on stderr."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=with_hushrec(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stderr


@contextmanager
def served(command: str, folder: Path) -> Iterator[None]:
    """Run what serves, until the body ends."""
    with (folder / "serves.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-ec", f"exec {command}"],
            cwd=folder,
            env=with_hushrec(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), (folder / "serves.log").read_text()
        yield
    finally:
        process.terminate()
        code = process.wait(30)
        process.stdout.close()
        assert code == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks with curl")
def test_the_commands_of_the_page_work_one_after_the_other(places: Path) -> None:
    ports = {"8470": free_port(), "8471": free_port()}
    assert {place for place, *_ in BLOCKS} == PLACES
    with ExitStack() as running:
        serving = {place: running.enter_context(ExitStack()) for place in sorted(PLACES)}
        for place, kind, text in BLOCKS:
            if kind in ELSEWHERE:
                continue
            commands = re.sub("8470|8471", lambda port: ports[port[0]], text)
            folder = places / place
            if kind == "serves":
                if place == "server":
                    config = folder / "hushrec.toml"
                    config.write_text(config.read_text().replace("# port = 8470", f"port = {ports['8470']}"))
                serving[place].close()  # what served here is started again
                serving[place].enter_context(served(commands.strip(), folder))
            else:
                said = run(commands, folder, 2 if kind == "refused" else 0)
                if kind == "joins":
                    none_yet = "took part in no round: none takes this device in now"
                    assert f"`{none_yet}`" in PAGE
                    assert f"\n{none_yet}\n" in said
                    assert re.search(r"\nmodel: release 1, the bundle .*/ann.profile.fleet/releases/", said)
    guarded = "new models go out once devices have compared them"
    assert f"`{guarded}`" in PAGE
    assert f"\n{guarded}, in rounds of plan " in (places / "server" / "serves.log").read_text()
    run_the_python_of_the_page(places)


def run_the_python_of_the_page(places: Path) -> None:
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(places / "authority")
        exec(SOURCES["login"], names)
        token = names["token_for"]("ann", "ab" * 32)
        assert verified_token(names["LOGIN_KEY"], token, plan_id="ab" * 32, at_s=0) == "ann"
        patch.chdir(places / "office")
        exec(SOURCES["parameters"], {"print": lambda size: names.update(size=size)})
        assert names["size"] > 2_048
        app = SimpleNamespace(
            login_token=lambda _: token, shopper_agreed=lambda: False, idle=bool, charging=bool, unmetered=bool
        )
        vault = 'folder=Path("fleet"), vault_key=bytes(32)'  # there is no keyring to ask here
        exec(SOURCES["app"].replace('folder=Path("fleet")', vault), names | {"app": app}, names)
        fleet = names["fleet"]
        try:
            assert fleet.status().state == "off"
            assert fleet.receipt().startswith("# Privacy receipt")
        finally:
            fleet.close()
            names["shop"].close()
