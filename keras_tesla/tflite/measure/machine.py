"""The machine on which something is measured."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

_INFORMATION = pathlib.Path("/proc/cpuinfo")


def describe(threads: int, packages) -> dict:
    """Describes where and when a measurement was made.

    Args:
        threads: Int, what the measurement was held to.
        packages: Names of packages whose versions matter.

    Returns:
        {"cpu": .., "cores": .., "threads": .., "python": .., package: version or None, ..,
        "date": ISO date}.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "date": datetime.date.today().isoformat(),
    }


def _cpu() -> str:
    # `platform.processor` is empty or just "x86_64" on Linux; x86, boards and phones name it so:
    lines = _INFORMATION.read_text().splitlines() if _INFORMATION.exists() else []
    for field in ("model name", "Model", "Hardware"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == field and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
