"""Say on what the benchmarks ran: processor, cores, memory, Python and the libraries that do the work.

python benchmarks/machine.py
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path

__all__ = ["main"]

LIBRARIES = ("hushrec", "numpy", "onnxruntime", "torch", "polars", "scipy")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp")


def main() -> None:
    """Print one line a fact; what this system does not tell is left out."""
    processor, flags = _processor()
    print(f"processor: {processor or platform.processor() or platform.machine()}")
    if flags:
        print(f"instructions: {', '.join(name for name in INSTRUCTIONS if name in flags) or 'none that matter here'}")
    print(f"cores: {os.cpu_count()}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        print(f"memory: {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    print(f"system: {platform.system()}, Python {platform.python_version()}")
    print("libraries:", ", ".join(f"{name} {version(name)}" for name in LIBRARIES))


def _processor() -> tuple[str, set[str]]:
    """Name and instruction sets of the first processor, where Linux tells."""
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return "", set()
    pairs = (line.partition(":") for line in told.read_text(encoding="utf-8").splitlines())
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    return facts.get("model name", ""), set((facts.get("flags") or facts.get("Features") or "").split())


if __name__ == "__main__":
    main()
