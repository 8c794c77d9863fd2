"""A server's data folder with everything that people put there, and the server as a process of its own."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hushrec.messages import DEVICE_HEADER, ROUTES, SIGNATURE_HEADER, CheckInBody, packed, path_of
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.envelope import Context, seal, sign_request
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.data_folder import EnvelopeKeys, prepare_folder
from hushrec_server.key_sets import next_key_set, signed_key_set

from tests.asgi import Answer
from tests.e2e.commands import HUSHREC
from tests.fake_fleet import AUTHORITY_KEY
from tests.fleet_plans import a_fleet_plan

__all__ = ["Running", "ServerFolder", "check_in", "check_in_request", "running"]

SERVER = "shop.example"
PATIENCE_S = 30.0


@dataclass
class ServerFolder:
    """What a shop has prepared.

    Attributes:
        data: The server's data folder, ready for a start.
        config: A configuration that listens at any free port.
        plan: A signed plan whose first round has begun.
        plan_file: Where it is.
    """

    data: Path
    config: Path
    plan: Plan
    plan_file: Path
    plan_key: PlanKey
    authority: AuthorityKey

    @classmethod
    def prepare(cls, folder: Path, **plan: Any) -> "ServerFolder":
        """Make it."""
        data, key = folder / "data", PlanKey.create(folder / "plan.key")
        keys = prepare_folder(data, lambda _: None)
        now = int(time.time())
        key_set = next_key_set(keys.envelopes[0].public(), server=SERVER, at_s=now - 60, lifetime_s=86_400)
        (data / "keys.json").write_bytes(signed_key_set(key, key_set))
        (data / "plan.pub").write_text(key.public().hex(), encoding="ascii")
        made = a_fleet_plan(**{"first_round_at": now - 10, "round_seconds": 3_600, **plan})
        (folder / "plan.json").write_bytes(made.encode())
        (folder / "plan.json.sig").write_bytes(key.sign(made))
        config = folder / "hushrec.toml"
        config.write_text(f'[server]\nname = "{SERVER}"\nport = 0\ndata = "data"\n', encoding="utf-8")
        return cls(data, config, made, folder / "plan.json", key, AUTHORITY_KEY)

    def envelope_public(self) -> bytes:
        """What devices seal to."""
        keys = prepare_folder(self.data, lambda _: None).envelopes
        found = EnvelopeKeys.read(self.data, keys, self.plan_key.public(), server=SERVER, at_s=int(time.time()))
        return found.key_set.newest(int(time.time()))


@dataclass
class Running:
    """A started server."""

    process: "subprocess.Popen[str]"
    port: int

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[Running]:
    """Run `hushrec …` until it says that it is ready; killed at the end if it still runs."""
    command = [str(HUSHREC), *map(str, arguments), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise AssertionError(process.stderr.read() if process.stderr else "")
            yield Running(process, int(json.loads(line)["url"].rpartition(":")[2]))
        finally:
            process.kill()
            process.communicate()


def check_in(folder: ServerFolder, server: Running) -> Answer:
    """Enrol a new device and ask for a place."""
    return server.ask(*check_in_request(folder))


def check_in_request(folder: ServerFolder) -> "tuple[str, str, dict[str, str], bytes]":
    """Method, path, headers and body of a new device's check-in."""
    identity, name = Identity.create(), os.urandom(16).hex()
    plan_id = folder.plan.plan_id
    certificate = folder.authority.certify(plan_id, name, identity.public())
    context = Context(SERVER, "check-in", plan_id, 0, name)
    inside = packed(CheckInBody(certificate))
    body = seal(folder.envelope_public(), context, inside, ROUTES["check-in"].payload_bytes)
    signed = sign_request(identity, context, body, at_s=int(time.time()))
    headers = {DEVICE_HEADER: name, SIGNATURE_HEADER: signed}
    return "POST", path_of("check-in", plan=plan_id), headers, body
