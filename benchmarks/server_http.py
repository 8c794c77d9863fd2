"""The server over HTTP: check-ins a second and their times at 200 connections, time to ready, memory at rest.

    python benchmarks/server_http.py [--check-ins 4000] [--connections 200] [--json]

One server process by `hushrec serve`, its own SQLite database, and PostgreSQL where `HUSHREC_TEST_POSTGRES` names one.
A check-in is a whole one: a new device's certificate, its signature, its sealed body, and a durable place in a round.
A refusal is the same of one device more than the round has places for. All of them are signed and sealed before the
clock starts; this process then sends them over kept connections, each the next one when its answer is there, so a time
includes waiting for a turn. Both processes share the machine.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import tempfile
import time
from pathlib import Path

import numpy as np
from hushrec.messages import DEVICE_HEADER, ROUTES, SIGNATURE_HEADER, CheckInBody, packed, path_of
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.envelope import Context, seal, sign_request
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request
from server_process import SERVER, cpu_s, memory_mb, own_database, prepare, served

__all__ = ["main"]

LIMIT_READY_S, LIMIT_IDLE_MB = 2.0, 150.0
CONFIG = """
[limits]
address_per_minute = 1000000000
connections = 2000
connections_per_address = 2000
"""


def main() -> None:
    """Measure and print; ends with an error if a limit is broken."""
    parser = argparse.ArgumentParser(description="HTTP side of the server.")
    parser.add_argument("--check-ins", type=int, default=4_000)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    databases = {"sqlite": ""}
    if os.environ.get("HUSHREC_TEST_POSTGRES"):
        databases["postgresql"] = os.environ["HUSHREC_TEST_POSTGRES"]
    for name, url in databases.items():
        with tempfile.TemporaryDirectory() as folder, own_database(url) as own:
            found[name] = _measure(Path(folder), own, options.check_ins, options.connections, options.starts)
    if options.json:
        print(json.dumps({"check_ins": options.check_ins, "connections": options.connections, **found}))
    else:
        for name, values in found.items():
            for what, value in values.items():
                print(f"{name:<12}{what:<34}{value:10.1f}" if value >= 10 else f"{name:<12}{what:<34}{value:10.2f}")
    slow = max(values["ready after, s"] for values in found.values())
    large = max(values["idle, MB"] for values in found.values())
    if slow > LIMIT_READY_S or large > LIMIT_IDLE_MB:
        raise SystemExit(f"above {LIMIT_READY_S} s to ready, or {LIMIT_IDLE_MB} MB at rest")


def _measure(folder: Path, url: str, check_ins: int, connections: int, starts: int) -> dict[str, float]:
    plan, public, authority = _prepare(folder, check_ins)
    times, starting, idle = [], [], 0.0
    for _ in range(starts):
        began = time.perf_counter()
        with served(folder, url) as (process, _):
            times.append(time.perf_counter() - began)
            starting.append(cpu_s(process.pid))
            time.sleep(1.0)
            idle = max(idle, memory_mb(process.pid))
    requests = [_check_in(plan, public, authority) for _ in range(2 * check_ins)]
    with served(folder, url) as (process, address):
        work, port = [cpu_s(process.pid)], int(address.rpartition(":")[2])
        took, statuses = asyncio.run(_send(port, requests[:check_ins], connections))
        work.append(cpu_s(process.pid))
        busy = memory_mb(process.pid)
        in_vain, refusals = asyncio.run(_send(port, requests[check_ins:], connections))
        work.append(cpu_s(process.pid))
        ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        health, _ = asyncio.run(_send(port, [ask] * check_ins, connections))
    if {*statuses} != {200} or {*refusals} != {429}:
        raise SystemExit(
            f"check-ins were answered with {sorted({*statuses})}, those in vain with {sorted({*refusals})}"
        )
    milliseconds = np.array(took[1:]) * 1e3
    return {
        "ready after, s": float(np.median(times)),
        "of it, processor time, s": float(np.median(starting)),
        "idle, MB": idle,
        "after the check-ins, MB": busy,
        "check-ins a second": check_ins / took[0],
        "processor time of a check-in, ms": (work[1] - work[0]) / check_ins * 1e3,
        "p50, ms": float(np.percentile(milliseconds, 50)),
        "p99, ms": float(np.percentile(milliseconds, 99)),
        "refusals a second": check_ins / in_vain[0],
        "processor time of a refusal, ms": (work[2] - work[1]) / check_ins * 1e3,
        "empty requests a second": check_ins / health[0],
    }


def _prepare(folder: Path, cohort: int) -> tuple[Plan, bytes, AuthorityKey]:
    """A data folder with a plan whose first round takes everyone in."""
    authority = AuthorityKey(secrets.token_bytes(32))
    request = Request(
        population=cohort * 10,
        cohort=cohort,
        rounds=10,
        delta=1e-6,
        noise_multiplier=4.0,
        authority=authority.public().hex(),
        first_round_at=int(time.time()) - 10,
        round_seconds=86_400,
    )
    plan, public, _ = prepare(folder, request, CONFIG)
    return plan, public, authority


def _check_in(plan: Plan, public: bytes, authority: AuthorityKey) -> bytes:
    """The bytes of one new device's request."""
    identity, name = Identity.create(), secrets.token_hex(16)
    inside = packed(CheckInBody(authority.certify(plan.plan_id, name, identity.public())))
    context = Context(SERVER, "check-in", plan.plan_id, 0, name)
    body = seal(public, context, inside, ROUTES["check-in"].payload_bytes)
    signed = sign_request(identity, context, body, at_s=int(time.time()))
    head = (
        f"POST {path_of('check-in', plan=plan.plan_id)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"{DEVICE_HEADER}: {name}\r\n{SIGNATURE_HEADER}: {signed}\r\n\r\n"
    )
    return head.encode() + body


async def _send(port: int, requests: list[bytes], connections: int) -> tuple[list[float], list[int]]:
    """Send all over kept connections: whole time and then each one's, seconds; and their statuses."""
    waiting, times, statuses = iter(requests), [], []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for request in waiting:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            times.append(time.perf_counter() - began)
            statuses.append(int(head[9:12]))
        writer.close()

    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
    began = time.perf_counter()
    await asyncio.gather(*(one(*streams) for streams in opened))
    return [time.perf_counter() - began, *times], statuses


if __name__ == "__main__":
    main()
