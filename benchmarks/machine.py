"""What the numbers depend on: processor, caches, versions. No name of a host, a user or a folder."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any


def description() -> dict[str, Any]:
    """Return the machine and the software that all contestants share."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "caches": _caches(),
        "widest vectors": _vectors(),
        "system": f"{platform.system()}, {platform.machine()}",
        "python": platform.python_version(),
        "numba": _version("numba"),
        "load before": f"{load():.2g} runnable processes",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def load() -> float:
    """Return how many processes wanted a processor in the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")


def _processor() -> str:
    """Return the model; hypervisors cut the name short, so family and model number go with it."""
    name = _cpuinfo("model name")
    numbers = [f"{key} {value}" for key in ("cpu family", "model") if (value := _cpuinfo(key))]
    return f"{name} ({', '.join(numbers)})" if name else platform.processor() or "unknown"


def _vectors() -> str:
    flags = set(_cpuinfo("flags").split())
    return next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")


def _caches() -> str:
    """Return the caches that the first processor sees."""
    found: list[str] = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / n).read_text().strip() for n in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)
