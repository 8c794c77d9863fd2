"""All benchmarks, one after the other, each in its own process: what docs/benchmarks.md states.

    python benchmarks/run_all.py [NAME ...]

Names: engine, cold_start, reading, quality. Quality takes hours on two cores and goes on where it was interrupted;
sets that are not at hand are left out and named.
"""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ALL = ("engine", "cold_start", "reading", "quality")
PACKAGES = ("hushrec", "numpy", "onnxruntime", "torch", "polars")


def main() -> int:
    names = sys.argv[1:] or ALL
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    print(machine(), flush=True)
    failed = 0
    for name in names:
        print(f"\n## {name}\n", flush=True)
        failed += subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode != 0
    return int(failed > 0)


def machine() -> str:
    """The machine and the versions that the figures belong to."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    flags = next((line for line in lines if line.startswith("flags")), "")
    known = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f" {flag}" in flags]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{model}, {os.cpu_count()} cores ({', '.join(known) or platform.machine()}), load {os.getloadavg()[0]:.1f}, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}"
    )


if __name__ == "__main__":
    sys.exit(main())
