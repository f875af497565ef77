"""What the code runs in: the versions, the commit and the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

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
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """Describe the machine: CPU, cores, memory in GB, GPUs and operating system."""
    cpu = re.search(r"^model name\s*: (.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    memory = re.search(r"^MemTotal: +(\d+) kB", _text(Path("/proc/meminfo")), re.MULTILINE)
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return {
        "cpu": cpu[1] if cpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        "gpus": [m[1] for m in (re.search(r"Model:\s*(.+)", _text(p)) for p in gpus) if m],
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
