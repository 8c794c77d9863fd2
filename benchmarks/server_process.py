"""What benchmarks over HTTP share: a shop's folder, a database of one run, `hushrec serve`, and what it costs."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.data_folder import prepare_folder
from hushrec_server.key_sets import next_key_set, signed_key_set

__all__ = ["SERVER", "cpu_s", "memory_mb", "own_database", "prepare", "served"]

SERVER = "bench"
HUSHREC = Path(sys.executable).with_name("hushrec")


def prepare(folder: Path, request: Request, config: str) -> tuple[Plan, bytes, bytes]:
    """A data folder, a configuration, and a signed plan.

    Returns:
        The plan, and the public halves of the envelope key and of the plan key.
    """
    (folder / "hushrec.toml").write_text(f'[server]\nname = "{SERVER}"\nport = 0\ndata = "data"\n{config}')
    key, now, data = PlanKey.create(folder / "plan.key"), int(time.time()), folder / "data"
    public = prepare_folder(data, lambda _: None).envelopes[0].public()
    key_set = next_key_set(public, server=SERVER, at_s=now - 60, lifetime_s=86_400)
    (data / "keys.json").write_bytes(signed_key_set(key, key_set))
    (data / "plan.pub").write_text(key.public().hex(), encoding="ascii")
    plan = make_plan(request)
    assert plan is not None
    (folder / "plan.json").write_bytes(plan.encode())
    (folder / "plan.json.sig").write_bytes(key.sign(plan))
    return plan, public, key.public()


@contextmanager
def served(folder: Path, database: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server process, and its address; `database` empty: SQLite in the data folder. Its log is `server.log`."""
    command = [str(HUSHREC), "serve", "--config", str(folder / "hushrec.toml"), "--plan", str(folder / "plan.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HUSHREC_DATABASE": database}
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: {(folder / 'server.log').read_text()[-2_000:]}")
        try:
            yield process, json.loads(line)["url"]
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def own_database(url: str) -> Iterator[str]:
    """A database of this run alone; nothing for SQLite."""
    if not url:
        yield ""
        return
    import psycopg
    from sqlalchemy import make_url

    server, name = make_url(url), f"hushrec_bench_{secrets.token_hex(6)}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def cpu_s(process: int) -> float:
    """Processor time that a process has used, its threads included."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int, *, peak: bool = False) -> float:
    """Resident memory of a process, MiB: now, or at its peak."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")
