"""How long publishing takes and how long a device's update takes, and how many bytes go over the wire.

    python benchmarks/releases.py [shop.hush] [--runs 5] [--json]

Without a bundle, that of `make demo`.

Over loopback, so that the times are those of signing, hashing and writing durably; a real network adds its own. Two
releases: the whole bundle, and one of which only the .bin files changed, as after a round of learning together.
"""

import argparse
import http.server
import json
import statistics
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from hushrec.bundle import Bundle, write_bundle
from hushrec.updates import Updater
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

__all__ = ["main"]


class _Counting(http.server.SimpleHTTPRequestHandler):
    sent = 0
    requests = 0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        data = source.read()
        _Counting.sent += len(data)
        outputfile.write(data)

    def log_message(self, *_: object) -> None:
        _Counting.requests += 1


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description="Publishing and updating.")
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("hushrec-demo/online_retail.hush"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as name:
            rows.append(_measured(Bundle.open(options.bundle), Path(name)))
    found = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    if options.json:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key:<40} {value:12,.1f}")


def _measured(bundle: Bundle, folder: Path) -> dict[str, float]:
    keys = ReleaseKeys.create(folder / "safe", folder / "online")
    repository = ReleaseRepository.create(folder / "repository", keys, clock=time.time)
    handler = partial(_Counting, directory=str(repository.folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    device = Updater(address, folder / "device", repository.root_bytes())
    found: dict[str, float] = {"bundle, bytes": bundle.size}
    for name, version in (("whole", 1), ("only .bin files", 2)):
        released = _renumbered(bundle, folder / f"{version}.hush", version)
        found[f"publish {name}, ms"] = _timed_ms(
            lambda out=released: repository.publish(out, ledger_head=None, demo=False)
        )
        _Counting.sent = _Counting.requests = 0
        found[f"update {name}, ms"] = _timed_ms(device.fetch)
        found[f"update {name}, bytes"], found[f"update {name}, requests"] = _Counting.sent, _Counting.requests
    _Counting.sent = _Counting.requests = 0
    found["look without news, ms"] = _timed_ms(device.check)
    found["look without news, bytes"] = _Counting.sent
    found["refresh, ms"] = _timed_ms(repository.refresh)
    found["rollback, ms"] = _timed_ms(lambda: repository.rollback(1))
    server.shutdown()
    server.server_close()
    return found


def _renumbered(bundle: Bundle, out: Path, version: int) -> Path:
    """The bundle under another version; from the second on, one bit of each .bin file is another."""
    files: dict[str, bytes | Path] = {name: bundle.path(name) for name in bundle.manifest.files}
    for name in files if version > 1 else ():
        if name.endswith(".bin"):
            data = bytearray(bundle.path(name).read_bytes())
            data[0] ^= 1  # the lowest bit of the first number
            files[name] = bytes(data)
    manifest = msgspec.structs.replace(bundle.manifest, model_version=version)
    origins = {name: info.origin for name, info in bundle.manifest.files.items()}
    return write_bundle(out, manifest, files, origins).root


def _timed_ms(work: Any) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
