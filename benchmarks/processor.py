"""What a step of training costs on this processor, and why: python -m benchmarks.processor.

TensorFlow has two sets of convolutions for processors, its own and oneDNN's, and a network may
compute in float32 or in bfloat16. What is fast differs by an order of magnitude, and between
processors. Each choice has a process of its own, since TensorFlow reads the environment once, and
they are measured in turns. Time is what the processors worked, so that other programs count little.
Prints the result, and puts it into book/results/processor.csv in place of this processor's last.
"""

from __future__ import annotations

import csv
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parents[1] / "book" / "results" / "processor.csv"
NETWORKS = ("unet2d", "unet3d")  # TuNet is two of the latter
WAYS = {
    "float32, TensorFlow's own": ("float32", "0"),
    "float32, oneDNN's": ("float32", "1"),
    "bfloat16, oneDNN's": ("bfloat16", "1"),
}
ROUNDS, STEPS = 2, 2
SLICES, WINDOWS = 8, 1  # of the preset `course`, in a step


def steps_s(network: str, precision: str) -> list[float]:
    """Time steps, after one that builds the graph."""
    import numpy as np

    from tunet_lib.config import VARIANTS, Config
    from tunet_lib.training import compiled

    config = Config.preset("course", precision=precision)
    variant, rng = VARIANTS[network], np.random.default_rng(0)
    count, shape = WINDOWS, config.patch_shape
    if variant.sees == "slice":
        count, shape = SLICES, config.grid_shape[1:]
    model = compiled(variant, config)
    image = rng.normal(size=(count, *shape, model.input_shape[-1])).astype(np.float32)
    masks = (rng.random((count, *shape, model.output_shape[-1])) > 0.9).astype(np.float32)
    times_s = []
    for _ in range(1 + STEPS):
        start_s = time.process_time()
        model.train_on_batch(image, masks)
        times_s.append(time.process_time() - start_s)
    return times_s[1:]


def known(flags: str) -> str:
    """Name the instructions that decide, of those that Linux lists."""
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI"}
    names |= {"avx_vnni": "VNNI", "avx512_bf16": "bfloat16", "amx_bf16": "AMX"}
    return ", ".join(dict.fromkeys(names[flag] for flag in names if flag in flags.split()))


def main() -> None:
    """Measure every choice in turns, and write down one line for each."""
    from tunet_lib.environment import machine

    here = machine()
    flags = re.findall(r"^flags\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    # Processors of one name differ in what they know.
    which = {
        "processor": f"{here['cores']} cores ({here['cpu']})",
        "instructions": known(flags[0] if flags else ""),
    }
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for network in NETWORKS:
            for way, (precision, onednn) in WAYS.items():
                command = [sys.executable, "-m", "benchmarks.processor", network, precision]
                said = subprocess.run(
                    command,
                    env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": onednn},
                    check=True,
                    capture_output=True,
                    text=True,
                )
                times_s = [float(word) for word in said.stdout.split()]
                print(network, way, times_s, flush=True)
                found.setdefault((network, way), []).extend(times_s)
    rows = [
        which
        | {
            "network": network,
            "way": way,
            "steps": len(times_s),
            "median_cpu_s": round(statistics.median(times_s), 2),
            "min_cpu_s": round(min(times_s), 2),
            "max_cpu_s": round(max(times_s), 2),
        }
        for (network, way), times_s in found.items()
    ]
    others = []
    if RESULT.exists():
        with RESULT.open(newline="", encoding="utf-8") as stream:
            others = list(csv.DictReader(stream))
    others = [row for row in others if not which.items() <= row.items()]
    with RESULT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(others + rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*steps_s(*sys.argv[1:]))
    else:
        main()
