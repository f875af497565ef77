"""What a study will take on this machine, measured by a few steps of it.

Chapter 9 (``notebooks/09_training.ipynb``).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tunet_lib.allowance import gpus, loaders, memory_bytes, processors, threads
from tunet_lib.config import VARIANTS, Variant
from tunet_lib.environment import machine
from tunet_lib.files import check_writable
from tunet_lib.folds import split_cases
from tunet_lib.runs import Run

STEPS = 20
PATIENCE_S = 60  # for the steps of one network: where they are slow, fewer are timed
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Pace:
    """How fast one network trains here.

    Attributes
    ----------
    variant
        Its name.
    steps, timed
        Training steps in an epoch, and how many of them were timed.
    step_s, watch_s
        Time of a step, and of a validation step, batches from disk included.
    watched
        Validation steps in an epoch.
    save_s, save_mb
        Time and size of a checkpoint in the run folder.
    memory_gb
        Memory of this process after that, and the most of the GPU if there is one.
    """

    variant: str
    steps: int
    timed: int
    step_s: float
    watched: int
    watch_s: float
    save_s: float
    save_mb: float
    memory_gb: tuple[float, float | None]

    @property
    def epoch_s(self) -> float:
        """How long an epoch takes, with its checkpoint."""
        return self.steps * self.step_s + self.watched * self.watch_s + self.save_s


def measure(run: Run, variant: Variant) -> Pace:
    """Train a network for some steps that count for nothing, as a training of fold 0 would.

    Raises
    ------
    DataError
        The prepared cases are damaged, or the run folder cannot be written.
    """
    from tunet_lib.patches import PatchDataset
    from tunet_lib.training import Training

    check_writable(run.folder / "checkpoint.npz")
    split = split_cases(run.cases(), run.folds, 0, inner=run.config.inner_validation)
    training = Training(variant, run.config, split, workers=loaders())
    network = training.network
    seed = (*training.seed, 0)
    batches = PatchDataset(training.sources, variant, run.config, seed=seed, workers=loaders())

    def timed(call: Any, dataset: Any, count: int) -> float:
        start_s = time.perf_counter()
        call(_first(dataset, count), verbose=0)
        return (time.perf_counter() - start_s) / count

    timed(network.fit, batches, 1)  # compiles
    timed(network.evaluate, training.watched, 1)
    count = max(2, min(STEPS, int(PATIENCE_S / timed(network.fit, batches, 1))))
    step_s = timed(network.fit, batches, count)
    watch_s = timed(network.evaluate, training.watched, max(2, count // 4))
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".tmp-") as scratch:
        start_s, checkpoint = time.perf_counter(), Path(scratch) / "checkpoint.npz"
        training.save(checkpoint)
        save_s, save_mb = time.perf_counter() - start_s, checkpoint.stat().st_size / 1e6
    sizes = len(batches), count, step_s, len(training.watched), watch_s
    return Pace(variant.name, *sizes, save_s, save_mb, _peaks_gb())


def of_machine(run: Run) -> list[str]:
    """Say what this process may use of the machine, a sentence each."""
    from tunet_lib.quiet import keras

    seen = len(keras.distribution.list_devices("gpu"))
    names = ", ".join(machine()["gpus"])
    lines = ["GPU: none"]
    if names or gpus() or seen:
        lines = [f"GPU: {names}; {len(gpus())} to be used here, and TensorFlow sees {seen}"]
    if DRIVER.exists():
        lines.append(f"driver: {DRIVER.read_text().splitlines()[0]}")
    if keras.backend.backend() == "tensorflow" and seen:
        from tunet_lib.quiet import tf

        exact = not tf.config.experimental.tensor_float_32_execution_enabled()
        lines.append(f"float32 on the GPU: {'exact' if exact else 'TF32, products of 10 bits'}")
    lines.append(
        f"processors: {processors()}; {threads()} threads for sums, {loaders()} to prepare batches"
    )
    free_gb = shutil.disk_usage(run.folder).free / 1e9
    lines.append(f"memory: {memory_bytes() / 1e9:.1f} GB free; disk: {free_gb:.0f} GB free")
    return lines


def of_study(run: Run, paces: Iterable[Pace], variants: Sequence[str] | None = None) -> list[str]:
    """Say what a study, or some of its variants, takes by the paces of its networks.

    A sentence each. A network takes as long with the median filter as without.
    """
    by_name = {pace.variant.removesuffix("_median"): pace for pace in paces}
    chosen = [
        (task, by_name[name])
        for task in run.tasks(variants)
        if (name := task[0].removesuffix("_median")) in by_name
    ]
    left = [pace for task, pace in chosen if not run.model_folder(task).is_trained]
    whole_s = sum(pace.epoch_s for pace in left) * run.config.epochs
    # While a checkpoint is written the one before is still there; weights are a quarter of one.
    disk_gb = sum(2.25 * pace.save_mb for _, pace in chosen) / 1e3
    longest_s = max(pace.epoch_s for pace in by_name.values())
    return [
        f"{len(left)} trainings of these networks are left: at most {duration(whole_s)} one after "
        f"the other, if each has all {run.config.epochs} epochs",
        f"disk: at most {disk_gb:.1f} GB, if all of them run at once",
        "to stop: Ctrl-C, or scancel; the same command goes on, and loses the epoch under way, "
        f"at most {duration(longest_s)}",
    ]


def of_network(run: Run, pace: Pace) -> str:
    """Say what one network takes, in a sentence."""
    used_gb, gpu_gb = pace.memory_gb
    on_gpu = f", on the GPU {gpu_gb:.1f} GB" if gpu_gb is not None else ""
    return (
        f"{pace.variant}: {pace.step_s:.2f} s a step ({pace.timed} timed), {pace.steps} steps and "
        f"{duration(pace.epoch_s)} an epoch, at most {duration(pace.epoch_s * run.config.epochs)} "
        f"a training; a checkpoint of {pace.save_mb:.0f} MB in {pace.save_s:.1f} s; "
        f"memory so far {used_gb:.1f} GB{on_gpu}"
    )


def duration(seconds: float) -> str:
    """Give seconds in the unit that suits them.

    >>> duration(5), duration(300), duration(27 * 3600)
    ('5.0 seconds', '5.0 minutes', '27.0 hours')
    """
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def plain_variants(names: list[str] | None) -> list[Variant]:
    """List the variants to measure: those that are named, or all without the median filter."""
    chosen = names or [name for name, variant in VARIANTS.items() if not variant.median]
    return [VARIANTS[name] for name in chosen]


def _first(dataset: Any, count: int) -> Any:
    """Give the first batches of a dataset, again and again until there are so many."""
    from tunet_lib.quiet import keras

    class First(keras.utils.PyDataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> Any:
            return dataset[index % len(dataset)]

    return First(workers=dataset.workers, max_queue_size=dataset.max_queue_size)


def _peaks_gb() -> tuple[float, float | None]:
    from tunet_lib.quiet import keras

    used_gb = psutil.Process().memory_info().rss / 1e9
    if keras.backend.backend() != "tensorflow" or not keras.distribution.list_devices("gpu"):
        return used_gb, None
    from tunet_lib.quiet import tf

    peak_gb = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9
    tf.config.experimental.reset_memory_stats("GPU:0")  # the next network has its own
    return used_gb, peak_gb
