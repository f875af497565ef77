"""One training in a process of its own: started by `jobs`.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from tunet_lib.allowance import gpu_is_promised, loaders
from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError
from tunet_lib.folds import split_cases
from tunet_lib.process import end_with
from tunet_lib.runs import Run, Task, open_run


def train_task(run: Run, task: Task, on_epoch: Callable[[Any], Any] | None = None) -> None:
    """Train one variant on one fold, in this process.

    Raises
    ------
    DataError
        Slurm gave the job a GPU, and none is to be seen; its files are damaged; or as for
        `training.train`.
    """
    from tunet_lib.training import train  # loads TensorFlow

    if gpu_is_promised():
        check_gpu()
    name, fold = task
    folder = run.model_folder(task)
    folder.check_files(run.config)
    split = split_cases(run.cases(), run.folds, fold, inner=run.config.inner_validation)
    # `train` asks as well; here a start that is refused has not yet noted its code.
    folder.note_split(split)
    folder.note_code()
    train(
        VARIANTS[name],
        run.config,
        split,
        folder=folder.path,
        on_epoch=on_epoch,
        workers=loaders(),
    )


def check_gpu() -> None:
    """Raise a `DataError` where no GPU is to be seen."""
    from tunet_lib.quiet import keras

    if not keras.distribution.list_devices("gpu"):
        raise DataError(
            f"this job was given a GPU by Slurm on {socket.gethostname()}, and TensorFlow sees "
            "none. Does nvidia-smi list one there? Was the package installed with its extra "
            "`cluster`? To train on processors, submit without a GPU"
        )


def main(arguments: list[str]) -> None:
    """Train, given run folder, variant and fold; end at once when the parent is gone.

    The parent holds the other end of this process's standard input, and writes nothing to it.
    """
    folder, variant, fold = arguments
    # Not by `sys.stdin`, whose lock the waiting thread would hold at a regular end.
    end_with(lambda: os.read(0, 1))
    try:
        train_task(open_run(folder), (variant, int(fold)))
    except DataError as error:
        sys.exit(f"Error: {error}")
