"""What the code runs in: the versions, the commit and the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = [
    *("tunet-book", "keras", "tensorflow", "numpy", "scipy", "nibabel"),
    *("connected-components-3d", "surface-distance-based-measures"),
]


def versions() -> dict[str, str | None]:
    """Give the versions of Python and of the packages that decide the numbers."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Give the commit that the library runs from, and whether its files were changed since.

    None if it does not run from a checkout of its own.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """Describe the machine: CPU, cores, memory in GB, GPUs and operating system."""
    cpus = _matches(r"^model name\s*: (.+)$", [Path("/proc/cpuinfo")])
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        "cpu": cpus[0] if cpus else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": _matches(r"^Model:\s*(.+)$", gpus),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _matches(pattern: str, paths: Iterable[Path]) -> list[str]:
    texts = (path.read_text(errors="replace") for path in paths if path.is_file())
    return [found for text in texts for found in re.findall(pattern, text, re.MULTILINE)]
