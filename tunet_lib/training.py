"""Training one network on one fold, resumable after a kill at any moment."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tunet_lib.config import Config, Variant
from tunet_lib.files import DataError, atomic_path
from tunet_lib.losses import DiceLoss
from tunet_lib.networks import CONFIG_NAME, WEIGHTS_NAME, build, save_model
from tunet_lib.patches import GridCase, PatchDataset, PatchSource, as_sources

HISTORY_NAME = "history.csv"
HISTORY_FIELDS = ("epoch", "loss", "val_loss", "learning_rate", "time_s")
CHECKPOINT_NAME = "checkpoint.npz"
VALIDATION_EPOCH = 2**31  # a seed that no training epoch has

EpochLog = dict[str, float]


@dataclass
class Schedule:
    """The learning rate and when to stop, from the validation losses seen so far.

    The learning rate falls by `plateau_factor` after `plateau_patience` epochs without
    improvement, or with ``decay="cosine"`` along half a cosine that ends at zero; training
    ends after `stop_patience` epochs without improvement, or after `epochs`.
    Source: Vu et al. 2019, 3.2.
    """

    learning_rate: float
    best_loss: float = math.inf
    best_epoch: int = 0
    plateau_wait: int = 0
    history: list[EpochLog] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return len(self.history)

    def finished(self, config: Config) -> bool:
        """Tell whether training is over."""
        stopped = self.epoch - self.best_epoch >= config.stop_patience
        return self.epoch >= config.epochs or stopped

    def add(self, log: EpochLog, config: Config) -> bool:
        """Take note of one more epoch; tell whether it is the best so far."""
        self.history.append(log)
        if config.decay == "cosine":
            done = self.epoch / config.epochs
            self.learning_rate = config.learning_rate * (1 + math.cos(math.pi * done)) / 2
        if log["val_loss"] < self.best_loss:
            self.best_loss, self.best_epoch, self.plateau_wait = log["val_loss"], self.epoch, 0
            return True
        self.plateau_wait += 1
        if config.decay == "plateau" and self.plateau_wait >= config.plateau_patience:
            self.learning_rate *= config.plateau_factor
            self.plateau_wait = 0
        return False


def train(
    variant: Variant,
    training: Sequence[GridCase],
    validation: Sequence[GridCase],
    config: Config,
    folder: str | Path,
    *,
    fold: int = 0,
    on_epoch: Callable[[EpochLog], Any] | None = None,
    workers: int = 1,
) -> list[EpochLog]:
    """Train one network and keep the weights of its best epoch.

    After every epoch one file takes in all that the next one depends on, and batches are
    drawn from (seed, fold, epoch). So a run that was killed and started again ends with the
    same weights, bit for bit on one machine, as one that was not.

    Parameters
    ----------
    variant, config
        What to train, and how.
    training, validation
        Prepared cases with labels; the validation loss drives `Schedule`.
    folder
        Gets the weights, the configuration and ``history.csv``. A finished training found
        there is kept; one cut short goes on.
    fold
        Part of the random seed.
    on_epoch
        Called after each epoch with its log.
    workers
        Threads that prepare batches.

    Returns
    -------
    list of dict
        For each epoch: epoch (from 1), loss, val_loss (L2 included), learning_rate, time_s.

    Raises
    ------
    DataError
        `folder` holds a training with another configuration, there is no case or no label
        map, the validation loss was never a number, or the disk is full.
    """
    folder = Path(folder)
    if not training or not validation:
        raise DataError(
            f"{folder}: {len(training)} training and {len(validation)} validation cases; "
            "both are needed, so add cases or choose another number of folds"
        )
    _check_same(folder, config)
    if (folder / WEIGHTS_NAME).exists():
        return read_history(folder / HISTORY_NAME)
    config.save(folder / CONFIG_NAME)
    for left in folder.glob(".tmp-*"):
        left.unlink()  # a file that a kill cut short
    # The same weights for the same seed, and no sum in an order that changes between runs.
    seed = (config.seed, fold, zlib.crc32(variant.name.encode()))
    keras.utils.set_random_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    _make_deterministic()

    model = compiled(variant, config)
    checkpoint = folder / CHECKPOINT_NAME
    schedule, best = _restore(checkpoint, model) or (
        Schedule(config.learning_rate),
        [np.array(value) for value in model.get_weights()],
    )
    sources = as_sources(training, variant, config)
    watched = PatchDataset(
        validation, variant, config, (*seed, VALIDATION_EPOCH), augment=False, workers=workers
    )
    while not schedule.finished(config):
        log = _run_epoch(model, sources, watched, schedule, variant, config, seed, workers)
        if schedule.add(log, config):
            best = model.get_weights()
        _save(checkpoint, model, schedule, best)
        write_history(folder / HISTORY_NAME, schedule.history)
        if on_epoch is not None:
            on_epoch(log)
    if not schedule.best_epoch:
        raise DataError(
            f"{folder}: the validation loss was never a number; lower learning_rate, or "
            "set precision to float32, and remove the folder to train again"
        )
    write_history(folder / HISTORY_NAME, schedule.history)
    # A compiled model would save Adam's state as well, and be three times the size.
    trained = build(variant, config)
    trained.set_weights(best)
    save_model(trained, variant, config, folder)
    checkpoint.unlink(missing_ok=True)
    return schedule.history


def compiled(variant: Variant, config: Config) -> keras.Model:
    """Build a network with its loss and Adam. Source: Vu et al. 2019, 3.2."""
    model = build(variant, config)
    optimizer: keras.Optimizer = keras.optimizers.Adam(
        config.learning_rate, beta_1=config.beta_1, beta_2=config.beta_2
    )
    if config.precision == "float16":
        # Small float16 gradients would round to zero without a scaled loss.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # XLA makes 3D convolutions many times slower on a CPU; JAX has nothing else.
    backend = keras.config.backend()
    slow = backend == "tensorflow" and not keras.distribution.list_devices("gpu")
    loss = DiceLoss(config.dice_over, config.dice_epsilon)
    model.compile(optimizer, loss, jit_compile=False if slow else "auto")
    optimizer.build(model.trainable_variables)
    return model


def write_history(path: str | Path, history: Sequence[EpochLog]) -> None:
    """Write the logs of all epochs as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, HISTORY_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def read_history(path: str | Path) -> list[EpochLog]:
    """Read what `write_history` wrote.

    Raises
    ------
    DataError
        The file is missing or not such a CSV.
    """
    try:
        with Path(path).open(newline="") as stream:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a training history ({error})") from error


def _run_epoch(
    model: keras.Model,
    sources: Sequence[PatchSource],
    watched: PatchDataset,
    schedule: Schedule,
    variant: Variant,
    config: Config,
    seed: tuple[int, ...],
    workers: int,
) -> EpochLog:
    start_s = time.monotonic()
    model.optimizer.learning_rate = schedule.learning_rate
    batches = PatchDataset(sources, variant, config, (*seed, schedule.epoch), workers=workers)
    fitted = model.fit(batches, epochs=1, shuffle=False, verbose=0)
    val_loss = model.evaluate(watched, verbose=0, return_dict=True)["loss"]
    return {
        "epoch": schedule.epoch + 1,
        "loss": float(fitted.history["loss"][0]),
        "val_loss": float(val_loss),
        "learning_rate": schedule.learning_rate,
        "time_s": round(time.monotonic() - start_s, 2),
    }


def _save(path: Path, model: keras.Model, schedule: Schedule, best: list[np.ndarray]) -> None:
    """Write all that the next epoch depends on, as one file: it is there whole or not."""
    arrays = {f"weight_{i}": value for i, value in enumerate(model.get_weights())}
    arrays |= {f"best_{i}": value for i, value in enumerate(best)}
    for i, variable in enumerate(model.optimizer.variables):
        arrays[f"optimizer_{i}"] = keras.ops.convert_to_numpy(variable)
    arrays["schedule"] = np.array(json.dumps(dataclasses.asdict(schedule)))
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _restore(path: Path, model: keras.Model) -> tuple[Schedule, list[np.ndarray]] | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            count = len(model.get_weights())
            model.set_weights([arrays[f"weight_{i}"] for i in range(count)])
            for i, variable in enumerate(model.optimizer.variables):
                variable.assign(arrays[f"optimizer_{i}"])
            best = [arrays[f"best_{i}"] for i in range(count)]
            return Schedule(**json.loads(str(arrays["schedule"]))), best
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: is no checkpoint of this network ({error}); remove it to start anew"
        ) from error


def _check_same(folder: Path, config: Config) -> None:
    path = folder / CONFIG_NAME
    if path.exists() and (wrong := Config.load(path).differences(config)):
        raise DataError(
            f"{folder}: holds a training with another configuration ({', '.join(wrong)} "
            "differ); use another folder, or remove it to train again"
        )


def _make_deterministic() -> None:
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
