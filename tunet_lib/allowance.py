"""How much of the machine this process may use: processors, memory, GPUs.

A batch system, a container or `taskset` allows less than there is, and each says so in its own
way: by the affinity, by a control group (version 1 or 2), or by Slurm's environment. The least
of them counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def processors() -> int:
    """Count the processors that this process may keep busy: at least 1."""
    counts = [float(os.cpu_count() or 1)]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    for folder in _groups("cpu"):
        quota = _words(folder / "cpu.max") or [
            word for name in ("quota", "period") for word in _words(folder / f"cpu.cfs_{name}_us")
        ]
        if len(quota) == 2 and all(map(str.isdecimal, quota)):  # "max" and -1: no limit
            counts.append(int(quota[0]) / max(1, int(quota[1])))
    counts += _slurm("SLURM_CPUS_PER_TASK") or _slurm("SLURM_CPUS_ON_NODE")
    return max(1, math.floor(min(counts)))


def memory_bytes() -> int:
    """Count the bytes of memory that this process may still take."""
    free = [float(psutil.virtual_memory().available)]
    for folder in _groups("memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        if limit and used and limit[0].isdecimal() and used[0].isdecimal():
            free.append(int(limit[0]) - int(used[0]) + _cached(folder))
    per_processor = [mb * processors() for mb in _slurm("SLURM_MEM_PER_CPU")]
    free += [mb * 2**20 for mb in _slurm("SLURM_MEM_PER_NODE") or per_processor]
    return max(0, int(min(free)))


def gpus() -> list[str]:
    """List the GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them."""
    # Asking TensorFlow would load it here; the driver's devices are enough to know.
    # CUDA counts from 0 whatever their names, as in a container that got one of several; in
    # Windows' Linux there is one device for all.
    devices = [*Path("/dev").glob("nvidia[0-9]*")] or [*Path("/dev").glob("dxg")]
    found = [str(number) for number in range(len(devices))]
    # Where Slurm names none for a job, those of the node belong to others.
    given = [os.environ.get(f"SLURM_{name}_GPUS", "") for name in ("STEP", "JOB")]
    default = next(filter(None, given), "") if "SLURM_JOB_ID" in os.environ else ",".join(found)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", default).strip()
    return [] if not found or visible in ("", "-1", "NoDevFiles") else visible.split(",")


def gpu_is_promised() -> bool:
    """Tell whether Slurm gave this job a GPU, be it there or not, that it has not put aside."""
    aside = os.environ.get("CUDA_VISIBLE_DEVICES") == "-1"
    numbers, count = (os.environ.get(f"SLURM_{name}") for name in ("JOB_GPUS", "GPUS_ON_NODE"))
    return not aside and (bool(numbers) or count not in (None, "", "0"))


def threads() -> int:
    """Count the threads that a training's sums are shared out among."""
    limit = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(limit) if limit.isdecimal() and int(limit) else processors()


def thread_limits(count: int) -> dict[str, str]:
    """Give the environment of a process whose sums take so many threads: set before TensorFlow."""
    names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
    return {"TF_NUM_INTEROP_THREADS": "1"} | dict.fromkeys(names, str(count))


def loaders() -> int:
    """Say how many threads prepare batches: beside a GPU up to 8, else 1, as sums take the rest."""
    return min(8, threads()) if gpus() else 1


def default_workers() -> int:
    """Say how many processes may each hold a CT: one a processor, as far as memory allows."""
    by_memory = int(memory_bytes() / 2e9)  # the largest of KiTS19 takes 2 GB
    return max(1, min(by_memory, processors()))


def default_jobs() -> int:
    """Say how many trainings may run side by side: one a GPU; without any, one a processor to 4."""
    return len(gpus()) or min(4, processors())


def _groups(controller: str) -> Iterator[Path]:
    """Give the folders of the control groups that this process is in, innermost first."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        # Version 1 has a tree for each set of controllers, version 2 a single one.
        root = CGROUPS / controllers if controllers else CGROUPS
        if not root.is_dir():  # named in another order
            root = CGROUPS / controller
        inner = root / own.strip("/")
        # Within a container the path may be the host's, which is not to be seen there.
        for folder in (inner, *inner.parents) if inner.is_dir() else (root,):
            yield folder
            if folder == root:
                break


def _cached(folder: Path) -> int:
    """Count what the kernel keeps of files, and gives back when memory is asked for."""
    words = _words(folder / "memory.stat")
    stat = dict(zip(words[::2], words[1::2], strict=False))
    found = stat.get("total_inactive_file") or stat.get("inactive_file") or "0"
    return int(found) if found.isdecimal() else 0


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _slurm(name: str) -> list[int]:
    value = os.environ.get(name, "")
    return [int(value)] if value.isdecimal() and int(value) > 0 else []
