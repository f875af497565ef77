"""Training one network on one fold, resumable after a kill at any moment.

Chapter 09 (``notebooks/09_training.ipynb``).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.config import Config, Variant
from tunet_lib.files import DataError, atomic_path
from tunet_lib.folds import Split
from tunet_lib.history import EpochLog, checked_history, read_history, write_history
from tunet_lib.losses import DiceLoss
from tunet_lib.model import Model
from tunet_lib.model_folder import ModelFolder
from tunet_lib.networks import build
from tunet_lib.owner import take_over
from tunet_lib.patches import PatchDataset, as_sources
from tunet_lib.quiet import keras

VALIDATION_EPOCH = 2**31  # a seed that no training epoch has
ATTEMPTS = 3  # at an epoch, before a training is given up


@dataclass
class Schedule:
    """The learning rate and when to stop, from the validation losses seen so far.

    The learning rate rises over `warmup_epochs`. It falls by `plateau_factor` after
    `plateau_patience` epochs without improvement, or with ``decay="cosine"`` along half a cosine
    that ends at zero; training ends after `stop_patience` epochs without improvement, or after
    `epochs`.
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

    def rate(self, config: Config) -> float:
        """Give the learning rate of the next epoch: at first a part of `learning_rate`."""
        return self.learning_rate * min(1, (self.epoch + 1) / (config.warmup_epochs + 1))

    def add(self, log: EpochLog, config: Config) -> bool:
        """Take note of one more epoch; tell whether it is the best so far."""
        self.history.append(log)
        if config.decay == "cosine":
            done = self.epoch / config.epochs
            self.learning_rate = config.learning_rate * (1 + math.cos(math.pi * done)) / 2
        if log["val_loss"] < self.best_loss:
            self.best_loss, self.best_epoch, self.plateau_wait = log["val_loss"], self.epoch, 0
            return True
        self.plateau_wait += self.epoch > config.warmup_epochs
        if config.decay == "plateau" and self.plateau_wait >= config.plateau_patience:
            self.learning_rate *= config.plateau_factor
            self.plateau_wait = 0
        return False


def train(
    variant: Variant,
    config: Config,
    split: Split,
    *,
    folder: str | Path,
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
    split
        Prepared cases with labels: those to train on, and those whose loss drives `Schedule`.
    folder
        Gets the weights, the configuration and ``history.csv``. A finished training found
        there is kept; one cut short goes on.
    on_epoch
        Called after each epoch with its log.
    workers
        Threads that prepare batches.

    Returns
    -------
    list of dict
        The log of each epoch, as `history.read_history` gives it.

    Raises
    ------
    DataError
        `folder` holds a training of another network or configuration or on other cases, there is
        no case or no label map, an epoch failed again and again (see `Training.run_epoch`), the
        disk is full, or another start has taken the folder over.
    """
    files = ModelFolder(Path(folder))
    if not split.training or not split.validation:
        raise DataError(
            f"{folder}: {len(split.training)} cases to train on, "
            f"{len(split.validation)} to watch; add cases, or change folds"
        )
    files.check_config(config, variant)
    files.note_split(split)
    if files.is_trained:
        files.checkpoint.unlink(missing_ok=True)  # of a start that was killed at its end
        return read_history(files.history_path)
    owner = take_over(files.path)
    if files.weights.exists():  # the one before finished a moment ago
        owner.leave()
        return read_history(files.history_path)
    files.describe(variant, config)
    training = Training(variant, config, split, workers=workers, attempt=files.attempt)
    training.restore(files.checkpoint)
    while not training.schedule.finished(config):
        log = training.run_epoch()
        training.save(files.checkpoint, owner.check)
        write_history(files.history_path, training.schedule.history, before=owner.check)
        if on_epoch is not None:
            on_epoch(log)
    write_history(files.history_path, training.schedule.history, before=owner.check)
    training.best_model().save(folder, before=owner.check)
    files.checkpoint.unlink(missing_ok=True)
    owner.leave()
    return training.schedule.history


class Training:
    """One training under way: the network, its schedule, and its best weights so far.

    Parameters
    ----------
    variant, config, split, workers
        As for `train`.
    attempt
        From 1; each has a seed of its own.
    """

    def __init__(
        self,
        variant: Variant,
        config: Config,
        split: Split,
        *,
        workers: int = 1,
        attempt: int = 1,
    ) -> None:
        self.variant, self.config, self.workers = variant, config, workers
        name = variant.name if attempt == 1 else f"{variant.name}, attempt {attempt}"
        self.seed = (config.seed, split.fold, zlib.crc32(name.encode()))
        # The same weights for the same seed, and no sum in an order that changes between runs.
        keras.utils.set_random_seed(int(np.random.SeedSequence(self.seed).generate_state(1)[0]))
        _make_deterministic()
        self.network = compiled(variant, config)
        self.schedule = Schedule(config.learning_rate)
        self.best = [np.array(value) for value in self.network.get_weights()]
        self.sources = as_sources(split.training, variant, config)
        self.watched = self.batches(split.validation, VALIDATION_EPOCH, augment=False)

    def run_epoch(self) -> EpochLog:
        """Train for one epoch, validate, and take note of both.

        With few bits a number can overflow: a loss, a weight, or, in silence, Adam's memory of a
        gradient, and then that weight never moves again. So all of them are looked at, and where
        one is not finite the epoch begins anew, with other batches.

        Raises
        ------
        DataError
            That did not help.
        """
        start_s, start = time.monotonic(), self.state()
        rate = self.schedule.rate(self.config)
        for attempt in range(ATTEMPTS):
            self.network.optimizer.learning_rate = rate  # part of the state that comes back
            batches = self.batches(self.sources, self.schedule.epoch, attempt, augment=True)
            fitted = self.network.fit(batches, epochs=1, shuffle=False, verbose=0)
            val_loss = self.network.evaluate(self.watched, verbose=0, return_dict=True)["loss"]
            losses = [fitted.history["loss"][0], val_loss]
            if all(np.isfinite(array).all() for array in (*losses, *self.state().values())):
                break
            self.set_state(start)
        else:
            raise DataError(
                f"epoch {self.schedule.epoch + 1} of {self.variant.title}: "
                f"{ATTEMPTS} times numbers grew beyond all bounds; lower "
                "learning_rate or take float32, and train in another folder"
            )
        log = {
            "epoch": self.schedule.epoch + 1,
            "loss": float(losses[0]),
            "val_loss": float(val_loss),
            "learning_rate": rate,
            "attempts": attempt + 1,
            "time_s": round(time.monotonic() - start_s, 2),
        }
        if self.schedule.add(log, self.config):
            self.best = self.network.get_weights()
        return log

    def best_model(self) -> Model:
        """Give the network of the best epoch, not compiled: Adam's state triples its size."""
        model = Model.untrained(self.variant, self.config)
        model.network.set_weights(self.best)
        return model

    def save(self, checkpoint: Path, before: Callable[[], Any] | None = None) -> None:
        """Write all that the next epoch depends on, as one file: it is there whole or not."""
        arrays = self.state()
        arrays |= {f"best_{i}": value for i, value in enumerate(self.best)}
        arrays["schedule"] = np.array(json.dumps(dataclasses.asdict(self.schedule)))
        with atomic_path(checkpoint, before=before) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def restore(self, checkpoint: Path) -> None:
        """Go on where `save` left off, if it ever did.

        Raises
        ------
        DataError
            The file is damaged, or of another network.
        """
        if not checkpoint.exists():
            return
        try:
            # NumPy by itself leaves a damaged file open.
            with checkpoint.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                self.set_state(arrays)
                self.best = [arrays[f"best_{i}"] for i in range(len(self.best))]
                self.schedule = Schedule(**json.loads(str(arrays["schedule"])))
                self.schedule.history = checked_history(self.schedule.history)
        except Exception as error:  # whatever zip, NumPy and Keras make of a damaged file
            raise DataError(
                f"{checkpoint}: is no checkpoint of this network ({error}); remove it to start anew"
            ) from error

    def state(self) -> dict[str, np.ndarray]:
        """Copy the weights and what the optimizer remembers."""
        return {
            name: np.array(keras.ops.convert_to_numpy(variable))
            for name, variable in self._variables().items()
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to weights and an optimizer that `state` has copied."""
        for name, variable in self._variables().items():
            variable.assign(state[name])

    def _variables(self) -> dict[str, Any]:
        kinds = {"weight": self.network.weights, "optimizer": self.network.optimizer.variables}
        return {f"{kind}_{i}": v for kind, group in kinds.items() for i, v in enumerate(group)}

    def batches(
        self, sources: Sequence[Any], epoch: int, attempt: int = 0, *, augment: bool
    ) -> PatchDataset:
        """Give the batches of one epoch, other ones for each attempt at it."""
        return PatchDataset(
            sources,
            self.variant,
            self.config,
            seed=(*self.seed, epoch, attempt)[: 4 + (attempt > 0)],
            augment=augment,
            workers=self.workers,
        )


def compiled(variant: Variant, config: Config) -> keras.Model:
    """Build a network with its loss and Adam. Source: Vu et al. 2019, 3.2."""
    model = build(variant, config)
    optimizer: keras.Optimizer = keras.optimizers.Adam(
        float(config.learning_rate), beta_1=config.beta_1, beta_2=config.beta_2
    )
    if config.precision == "float16":
        # Small float16 gradients would round to zero without a scaled loss.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # XLA makes 3D convolutions many times slower on a CPU;
    # JAX has nothing else.
    backend = keras.config.backend()
    slow = backend == "tensorflow" and not keras.distribution.list_devices("gpu")
    loss = DiceLoss(config.dice_over, config.dice_epsilon)
    model.compile(optimizer, loss, jit_compile=False if slow else "auto")
    optimizer.build(model.trainable_variables)
    return model


def _make_deterministic() -> None:
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
