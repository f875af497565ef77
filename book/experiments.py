"""Find the recipe: python book/experiments.py NAME… --data DATA trains, scores, notes a line each.

The experiments are the table `EXPERIMENTS`: each says what it changes and why. The phantoms that
train, those on which the best epoch is chosen, and those that score (the tuning cases) have
seeds of their own, apart from the study's, so that no case of the study is looked at before the
recipe is written down.

An experiment that was cut short goes on from its last epoch; finished, it adds its line to
book/results/experiments.csv (L-Net: experiments_lnet.csv).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from tunet_lib.config import VARIANTS, Config
from tunet_lib.folds import Split
from tunet_lib.losses import DiceLoss
from tunet_lib.metrics import dice
from tunet_lib.model import Model
from tunet_lib.phantom import write_phantoms
from tunet_lib.preprocess import PreparedCase, prepare_cases
from tunet_lib.quiet import keras
from tunet_lib.training import Training

RESULTS = Path(__file__).parent / "results"
TRAINING_SEED, TUNING_SEED = 77001, 77002  # the study's is 2019
TUNING_CASES, WATCHED_CASES = (
    32,
    16,
)  # scored; and of the training cases those that choose the epoch
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
CLASSES_ML = (0, 10, 30, 100, math.inf)
COARSE: dict[str, Any] = {
    "grid_shape": (48, 80, 80),
    "lnet_shape": (24, 40, 40),
    "patch_shape": (48, 40, 40),  # all slices, half of the plane
    "patch_stride": (48, 10, 10),  # the paper's 25 windows
    "levels": 4,
    "patch_sampling": "random",
    "patches_per_case": 2,
    "foreground_fraction": 0.3,
    "tumor_fraction": 0.4,
    "dice_over": "batch",
    "batch_size": 8,
    "batch_size_2d": 32,
    "first_prob": 0.5,
    "decay": "cosine",
    "learning_rate": 2e-3,
    "warmup_epochs": 1,
    "precision": "bfloat16",
    "epochs": 12,
    "stop_patience": 1000,
    "rotation_deg": 1.0,
    "zoom": 0.0,
    "mirror": False,
    "gain": 0.0,
    "shift": 0.0,
    "inner_validation": False,
    "lnet_threshold": 0.5,
    "lnet_margin_mm": 0.0,
}
FINE: dict[str, Any] = {
    "grid_shape": (64, 112, 112),
    "lnet_shape": (32, 56, 56),
    "patch_shape": (64, 56, 56),
    "patch_stride": (64, 14, 14),
}
STRONG: dict[str, Any] = {"rotation_deg": 10.0, "zoom": 0.15, "gain": 0.1, "shift": 0.1}
MIRROR: dict[str, Any] = STRONG | {"mirror": True}
# The recipe of a 3-D network whose parts are changed in ``ablations.py``.
SPACE: dict[str, Any] = MIRROR | {"first_prob": 0.05, "batch_size": 2, "epochs": 8}
PLAIN = {"rotation_deg": 1.0, "zoom": 0.0, "mirror": False, "gain": 0.0, "shift": 0.0}
UNIFORM = {"foreground_fraction": 0.0, "tumor_fraction": 0.0}


class DiceAndCrossEntropy(DiceLoss):
    """Dice, plus the mean binary cross-entropy of each channel, times a weight."""

    weight = 0.1

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Give the loss of a batch."""
        v, u = (keras.ops.cast(x, "float32") for x in (y_true, y_pred))
        each = keras.ops.mean(keras.ops.binary_crossentropy(v, u))
        return super().call(y_true, y_pred) + self.weight * each * u.shape[-1]


class DiceOfThree(DiceLoss):
    """Dice of whole and tumor, and a third one, of the kidney without its tumor."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Give the loss of a batch."""
        v, u = (keras.ops.cast(x, "float32") for x in (y_true, y_pred))
        kidney = super().call(v[..., :1] - v[..., 1:], u[..., :1] * (1 - u[..., 1:]))
        return super().call(v, u) + kidney


class WholeFirst(DiceLoss):
    """Dice of the whole alone for the first half of the epochs, then of both channels.

    T-Net is frozen meanwhile. Without a gradient of its loss it would not stay as it is: that of
    the L2 term is left, and Adam makes nearly whole steps of however small a gradient. All kernels
    of a T-Net that was not frozen were 0 in the end.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tumor_weight = keras.Variable(1.0, trainable=False, dtype="float32")

    def begin(self, network: Any, share_done: float) -> None:
        """Say, before an epoch, which share of them is done."""
        self.tumor_weight.assign(float(share_done >= 0.5))
        network.get_layer("t_net").trainable = share_done >= 0.5
        network.make_train_function(force=True)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Give the loss of a batch."""
        whole = super().call(y_true[..., :1], y_pred[..., :1])
        return whole + self.tumor_weight * super().call(y_true[..., 1:], y_pred[..., 1:])


class DiceOnEachLevel(DiceLoss):
    """Dice of both channels, and half, a quarter, … of what each lower level's head says."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Give the loss of a batch whose prediction holds the levels' channels, finest first."""
        levels = keras.ops.split(y_pred, y_pred.shape[-1] // y_true.shape[-1], axis=-1)
        return sum(
            0.5**k * super(DiceOnEachLevel, self).call(y_true, u) for k, u in enumerate(levels)
        )


LOSSES = {
    "dice": DiceLoss,
    "cross-entropy": DiceAndCrossEntropy,
    "kidney": DiceOfThree,
    "whole first": WholeFirst,
    "each level": DiceOnEachLevel,
}


def with_heads(network: Any, first_prob: float) -> Any:
    """Give a U-Net whose lower decoder levels speak as well, for training.

    Each of them gets a sigmoid of its own, repeated to the full size. The channels are the
    network's own, then those of half its resolution, and so on. All layers of `network` are
    shared: what it becomes is what it predicts without the heads. The lowest level has none, as
    it is no decoder's.
    """
    layers = keras.layers
    ups = [
        layer
        for layer in network.layers
        if isinstance(layer, layers.UpSampling2D | layers.UpSampling3D)
    ]
    prior = keras.initializers.Constant(math.log(first_prob / (1 - first_prob)))
    outputs = [network.output]
    for level, up in enumerate(reversed(ups[1:]), start=1):
        flat = isinstance(up, layers.UpSampling2D)
        head = (layers.Conv2D if flat else layers.Conv3D)(
            network.output.shape[-1], 1, activation="sigmoid", bias_initializer=prior,
            dtype="float32", name=f"probability_{level}",
        )  # fmt: skip
        outputs.append(type(up)(2**level, dtype="float32")(head(up.input)))
    return keras.Model(network.input, layers.Concatenate(dtype="float32")(outputs))


@dataclass(frozen=True)
class Experiment:
    """One training: what differs from the others, and all that decides it.

    Attributes
    ----------
    name, changed
        What it is called, and what it asks, for the CSV.
    variant, config
        The network, and the fields that differ from `COARSE`.
    loss
        A key of `LOSSES`.
    adam
        Options of Keras's Adam that `Config` does not have.
    cases
        Training cases.
    training_scored
        How many of them are scored as well, for the gap to unseen ones.
    seed
        Draws the first weights, the windows and their changes; the cases stay.
    """

    name: str
    changed: str
    variant: str = "tunet"
    config: dict[str, Any] = field(default_factory=dict)
    loss: str = "dice"
    adam: dict[str, Any] = field(default_factory=dict)
    cases: int = 168
    training_scored: int = 0
    seed: int = 2019

    @property
    def full_config(self) -> Config:
        """Give all numbers of the method."""
        return Config.preset("course", **(COARSE | {"seed": self.seed} | self.config))


def with_seed(name: str, changed: str, *more: Any, seed: int, **others: Any) -> Experiment:
    """Give an experiment of a seed, which its name has unless it is the first of all."""
    if seed != Experiment.seed:
        name, changed = f"{name}_{seed}", f"{changed}, seed {seed}"
    return Experiment(name, changed, *more, seed=seed, **others)


EXPERIMENTS = (
    Experiment("base", "base: coarse grid, Dice, batch 8, peak 2e-3"),
    Experiment("long", "three times the steps", config={"epochs": 36}),
    Experiment("strong", "stronger augmentation", config=STRONG),
    Experiment("mirror", "and left-right mirrors", config=MIRROR, training_scored=16),
    Experiment(
        "mirror_long",
        "mirrors, three times the steps",
        config=MIRROR | {"epochs": 36},
        training_scored=16,
    ),
    Experiment("mirror_b2", "mirrors, batch 2", config=MIRROR | {"batch_size": 2}),
    Experiment("mirror_b24", "mirrors, batch 24", config=MIRROR | {"batch_size": 24}),
    Experiment("mirror_lr5e-4", "mirrors, peak 5e-4", config=MIRROR | {"learning_rate": 5e-4}),
    Experiment("mirror_lr4e-3", "mirrors, peak 4e-3", config=MIRROR | {"learning_rate": 4e-3}),
    Experiment("mirror_kidney", "mirrors, third Dice", config=MIRROR, loss="kidney"),
    Experiment(
        "mirror_ce", "mirrors, a tenth of cross-entropy", config=MIRROR, loss="cross-entropy"
    ),
    Experiment("mirror_float32", "mirrors, float32", config=MIRROR | {"precision": "float32"}),
    Experiment(
        "mirror_uniform",
        "mirrors, windows drawn uniformly",
        config=MIRROR | UNIFORM,
    ),
    Experiment("mirror_f16", "mirrors, 16 filters", config=MIRROR | {"filters": 16}),
    Experiment("mirror_500", "mirrors, 500 phantoms", config=MIRROR | {"epochs": 4}, cases=500),
    Experiment("fine", "finer grid, mirrors", config=FINE | MIRROR, training_scored=16),
    Experiment(
        "fine_long", "finer grid, mirrors, three times", config=FINE | MIRROR | {"epochs": 36}
    ),
    Experiment(
        "fine_kidney", "finer grid, mirrors, third Dice", config=FINE | MIRROR, loss="kidney"
    ),
    Experiment("fine_f16", "finer grid, 16 filters", config=FINE | MIRROR | {"filters": 16}),
    Experiment("fine_u3d", "U-Net 3D, finer grid", "unet3d", FINE | MIRROR),
    Experiment("fine_u2d", "U-Net 2D, finer grid", "unet2d", FINE | MIRROR),
    Experiment("fine_seb", "TuNet + SEB, finer grid", "tunet_seb", FINE | MIRROR),
    Experiment("fine_median", "TuNet + median, finer grid", "tunet_median", FINE | MIRROR),
    Experiment("u3d", "U-Net 3D, mirrors", "unet3d", MIRROR),
    Experiment("u2d", "U-Net 2D, mirrors", "unet2d", MIRROR, training_scored=16),
    *(
        Experiment(
            f"u3d_prior{name}",
            f"U-Net 3D, first probability 0.05{changed}",
            "unet3d",
            MIRROR | {"first_prob": 0.05, **more},
        )
        for name, changed, more in (
            ("", "", {}),
            ("_b2", ", batch 2", {"batch_size": 2}),
            ("_sample", ", Dice of each patch", {"dice_over": "sample"}),
            (
                "_b2_sample",
                ", batch 2, Dice of each patch",
                {"batch_size": 2, "dice_over": "sample"},
            ),
        )
    ),
    Experiment(
        "mirror_prior",
        "mirrors, first probability 0.05 instead of 0.5",
        config=MIRROR | {"first_prob": 0.05},
    ),
    Experiment(
        "mirror_prior_lr1e-3",
        "first probability 0.05, peak 1e-3",
        config=MIRROR | {"first_prob": 0.05, "learning_rate": 1e-3},
    ),
    # Beside `3d` of ablations.py, which has three seeds. A step with 4, 8 and 16 filters takes
    # 0.18, 0.36 and 1.21 s of a core; the epochs make their trainings about equally long.
    *(
        Experiment(f"space_{name}", f"U-Net 3D, batch 2, {changed}", "unet3d", SPACE | more)
        for name, changed, more in (
            ("lr3e-4", "peak 3e-4", {"learning_rate": 3e-4}),
            ("lr1e-3", "peak 1e-3", {"learning_rate": 1e-3}),
            ("lr4e-3", "peak 4e-3", {"learning_rate": 4e-3}),
            ("f4", "4 filters, 16 epochs", {"filters": 4, "norm_groups": 4, "epochs": 16}),
            ("f16", "16 filters, 3 epochs", {"filters": 16, "epochs": 3}),
            ("float32", "float32", {"precision": "float32"}),
            ("uniform", "windows drawn uniformly", UNIFORM),
            ("1deg", "rotation by 1 degree alone", PLAIN),
            ("b8", "batch 8, as many steps", {"batch_size": 8, "epochs": 32}),
        )
    ),
    # The one that seemed best, with the other two seeds of `3d`.
    *(
        with_seed(
            "space_lr1e-3",
            "U-Net 3D, batch 2, peak 1e-3",
            "unet3d",
            SPACE | {"learning_rate": 1e-3},
            seed=seed,
        )
        for seed in (2020, 2021)
    ),
    # What keeps a network from calling kidneys tumor? Eight windows an update, all of one Dice; the
    # same, each with a Dice of its own; the mean gradient of four steps of two windows. All at a
    # quarter as many updates and as many voxels, with three seeds.
    *(
        with_seed(
            f"space_{name}",
            f"U-Net 3D, {what}",
            "unet3d",
            SPACE | changes,
            adam=adam,
            seed=seed,
        )
        for name, what, changes, adam in (
            ("shared", "batch 8, a quarter of the steps", {"batch_size": 8}, {}),
            (
                "sample",
                "batch 8, a quarter of the steps, Dice of each window",
                {"batch_size": 8, "dice_over": "sample"},
                {},
            ),
            (
                "accumulate",
                "batch 2, mean gradient of four steps",
                {},
                {"gradient_accumulation_steps": 4},
            ),
        )
        for seed in (2019, 2020, 2021)
    ),
    # Keras puts the average in place of the weights at the end of each `fit`, that is, each epoch:
    # it is what is watched, kept, and trained on from.
    Experiment(
        "space_average",
        "U-Net 3D, batch 2, an epoch ends at the average of its last hundred steps",
        "unet3d",
        SPACE,
        adam={"use_ema": True, "ema_momentum": 0.99},
    ),
    # As the study trains its L-Nets, and for twice as long, with three seeds.
    *(
        with_seed(
            f"fine_lnet_{epochs}",
            f"L-Net, finer grid, mirrors, first probability 0.05, {epochs} epochs",
            "lnet",
            FINE | MIRROR | {"first_prob": 0.05, "epochs": epochs},
            seed=seed,
        )
        for seed in (2019, 2020, 2021)
        for epochs in (20, 40)
    ),
    Experiment("fine_lnet", "L-Net, finer grid, mirrors", "lnet", FINE | MIRROR),
    Experiment("lnet", "L-Net, mirrors", "lnet", MIRROR),
)


class Cases:
    """The phantoms of an experiment, made and prepared if they are not there yet."""

    def __init__(self, data: Path, config: Config) -> None:
        self.data, self.config = data, config

    def load(self, name: str, count: int, seed: int) -> list[PreparedCase]:
        """Give the first `count` of a seed."""
        phantoms = write_phantoms(self.data / name, count, seed)
        grid = "x".join(map(str, self.config.grid_shape))
        if self.config.clip_hu:
            grid += "_clip{:g}to{:g}".format(*self.config.clip_hu)
        prepared, failures = prepare_cases(phantoms, self.data / f"{name}_{grid}", self.config)
        if failures:
            raise RuntimeError(f"not prepared: {failures}")
        return prepared[:count]


@dataclass
class InMemory:
    """A prepared case read once, so that an epoch reads no file."""

    case: PreparedCase

    def __post_init__(self) -> None:
        self.case_id = self.case.case_id
        self.truth = np.array(self.case.label())
        self.volumes: dict[bool, np.ndarray] = {}

    def volume(self, median: bool) -> np.ndarray:
        """Give the normalized volume, float32."""
        if median not in self.volumes:
            self.volumes[median] = np.array(self.case.volume(median), np.float32)
        return self.volumes[median]

    def label(self) -> np.ndarray:
        """Give the label map."""
        return self.truth


def train(experiment: Experiment, cases: list[InMemory], folder: Path) -> tuple[Training, float]:
    """Train, or go on with it; give the training and its processor time in s, NaN if unknown."""
    folder.mkdir(parents=True, exist_ok=True)
    config, variant = experiment.full_config, VARIANTS[experiment.variant]
    split = Split(0, cases[WATCHED_CASES:], cases[:WATCHED_CASES])
    training = Training(variant, config, split, workers=2)
    loss = LOSSES[experiment.loss](config.dice_over, config.dice_epsilon)
    plain = network = training.network
    if isinstance(loss, DiceOnEachLevel):
        network = training.network = with_heads(plain, config.first_prob)
        training.best = network.get_weights()
    # Anew: an optimizer belongs to the variables of one network, and heads bring more of them.
    options = plain.optimizer.get_config() | experiment.adam
    adam = type(plain.optimizer).from_config(options)
    network.compile(adam, loss, jit_compile=plain.jit_compile)
    adam.build(network.trainable_variables)
    training.restore(folder / "training.npz")
    spent = folder / "cpu_s.json"  # by all processes that worked on it
    cpu_s = math.nan if training.schedule.epoch else 0.0
    if spent.exists():
        cpu_s = json.loads(spent.read_text())
    while not training.schedule.finished(config):
        started_s = time.process_time()
        if isinstance(loss, WholeFirst):
            loss.begin(network, training.schedule.epoch / config.epochs)
        log = training.run_epoch()
        training.save(folder / "training.npz")
        cpu_s += time.process_time() - started_s
        spent.write_text(json.dumps(cpu_s))
        print(experiment.name, *(f"{name} {value:.4g}" for name, value in log.items()), flush=True)
    network.set_weights(training.best)
    training.best = plain.get_weights()  # without the heads, if there are any
    return training, cpu_s


def score_case(prob: np.ndarray, label: np.ndarray, voxel_ml: float) -> dict[str, float]:
    """Score one case at the threshold 0.5, and its tumor at the others as well.

    ``sensitivity`` and ``precision`` are of tumor voxels; a case without any predicted tumor has
    a precision of 0. ``false_kidney_ml`` is the predicted tumor within the true whole on the side
    of the body that holds no true tumor, ``false_side_ml`` all predicted tumor on that side; nan
    where both sides hold one. The sides meet half way between the two kidneys.
    """
    truth, tumor = label == 2, prob[..., 1] >= 0.5
    scores = {
        "whole": dice((prob[..., 0] >= 0.5) | tumor, label > 0),
        "tumor": dice(tumor, truth),
        "sensitivity": float((tumor & truth).sum() / max(1, truth.sum())),
        "precision": float((tumor & truth).sum() / max(1, tumor.sum())),
        "tumor_ml": float(truth.sum() * voxel_ml),
        "false_kidney_ml": math.nan,
        "false_side_ml": math.nan,
    }
    for threshold in THRESHOLDS:
        scores[f"tumor_{threshold}"] = dice(prob[..., 1] >= threshold, truth)
    for side in healthy_sides(label):
        false = tumor & side
        scores["false_side_ml"] = float(false.sum() * voxel_ml)
        scores["false_kidney_ml"] = float((false & (label > 0)).sum() * voxel_ml)
    return scores


def healthy_sides(label: np.ndarray) -> list[np.ndarray]:
    """Give the sides of the body, as masks, whose kidney has no tumor: none or one."""
    parts, count = ndimage.label(label > 0)
    largest = np.argsort(np.bincount(parts.ravel(), minlength=count + 1)[1:])[::-1][:2] + 1
    middle = np.mean([center[2] for center in ndimage.center_of_mass(parts > 0, parts, largest)])
    left = np.broadcast_to(np.arange(label.shape[2]) < middle, label.shape)
    return [side for side in (left, ~left) if not (label[side] == 2).any()]


def summary(scores: list[dict[str, float]]) -> dict[str, Any]:
    """Give means over the cases, with the standard error of the two DSC."""
    table = {name: np.array([score[name] for score in scores]) for name in scores[0]}
    row: dict[str, Any] = {}
    for name in ("whole", "tumor"):
        row[name] = table[name].mean()
        row[f"{name}_se"] = table[name].std(ddof=1) / math.sqrt(len(scores))
    for low, high in pairwise(CLASSES_ML):
        chosen = (table["tumor_ml"] >= low) & (table["tumor_ml"] < high)
        title = f"over_{low}_ml" if high == math.inf else f"{low}_to_{high}_ml"
        row[f"tumor_{title}"] = table["tumor"][chosen].mean() if chosen.any() else math.nan
    for name in ("false_kidney_ml", "false_side_ml"):
        row[name] = np.nanmean(table[name])
    row["sensitivity"], row["precision"] = table["sensitivity"].mean(), table["precision"].mean()
    best = max(THRESHOLDS, key=lambda threshold: table[f"tumor_{threshold}"].mean())
    row["exploratory_threshold"] = best
    row["exploratory_tumor"] = table[f"tumor_{best}"].mean()
    return row


def facts(experiment: Experiment, training: Training, cpu_s: float) -> dict[str, Any]:
    """Give what is known of a training before it is scored."""
    config, variant = experiment.full_config, VARIANTS[experiment.variant]
    history = training.schedule.history
    batches = training.batches(training.sources, 0, augment=True)
    steps = len(batches) * len(history)
    voxels = math.prod(variant.patch_shape(config)) * batches.batch * steps
    return {
        "name": experiment.name,
        "what_changed": experiment.changed,
        "variant": experiment.variant,
        "grid": "x".join(map(str, config.grid_shape)),
        "cases": experiment.cases - WATCHED_CASES,
        "steps": steps,
        "batch": batches.batch,
        "learning_rate": config.learning_rate,
        "precision_of_training": config.precision,
        "million_voxels": round(voxels / 1e6, 1),
        "cpu_minutes": round(cpu_s / 60, 1),
        "minutes": round(sum(log["time_s"] for log in history) / 60, 1),
        "machine": machine(),
        "train_loss": round(history[-1]["loss"], 4),
        "watched_loss": round(training.schedule.best_loss, 4),
        "best_epoch": training.schedule.best_epoch,
        "epochs_begun_anew": sum(log["attempts"] - 1 for log in history),
    }


def machine() -> str:
    """Name the card, or else the processor."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, encoding="utf-8", check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in values.items()}
    extra = " avx512_bf16" if "avx512_bf16" in named.get("flags", "") else ""
    return named.get("model name", platform.processor()) + extra


def lnet_rows(predict: Any, cases: Iterable[InMemory]) -> list[dict[str, Any]]:
    """Say, for thresholds and margins, what L-Net's mask keeps and how large it is.

    A margin is a dilation by so many grid voxels along each axis.
    """
    found: dict[tuple[float, int], list[tuple[float, ...]]] = {}
    for case in cases:
        prob, label = predict(case)[..., 0], case.label()
        for threshold in (0.05, 0.1, *THRESHOLDS):
            mask = prob >= threshold
            for margin in range(5):
                tumor, whole = (mask & (label == 2)).sum(), (mask & (label > 0)).sum()
                numbers = tumor / (label == 2).sum(), whole / (label > 0).sum()
                found.setdefault((threshold, margin), []).append(
                    (dice(mask, label > 0), *numbers, mask.sum() / (label > 0).sum())
                )
                mask = ndimage.binary_dilation(mask, np.ones((3, 3, 3)))
    rows = []
    for (threshold, margin), values in found.items():
        table = np.array(values)
        row = {"threshold": threshold, "margin_voxels": margin}
        names = ("dsc", "tumor_kept", "whole_kept", "volume_ratio")
        row |= dict(zip(names, table.mean(axis=0).tolist(), strict=True))
        row["tumor_kept_worst"], row["volume_ratio_worst"] = table[:, 1].min(), table[:, 3].max()
        rows.append(row)
    return rows


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add lines to a CSV."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})


@dataclass
class Trial:
    """An experiment that was trained: what predicts, and the cases, in memory.

    Attributes
    ----------
    facts
        What is known of the training before it is scored.
    predict
        Gives a case's probabilities on the grid, ``(z, y, x, channels)``.
    score
        Gives each case's `score_case`.
    tuning, training_cases
        The cases that score; those that trained.
    """

    facts: dict[str, Any]
    predict: Callable[[InMemory], np.ndarray]
    score: Callable[[list[InMemory]], list[dict[str, float]]]
    tuning: list[InMemory]
    training_cases: list[InMemory]


def try_out(experiment: Experiment, data: Path) -> Trial:
    """Train one, or take it from where it is trained."""
    config, variant = experiment.full_config, VARIANTS[experiment.variant]
    cases = Cases(data, config)
    tuning = list(map(InMemory, cases.load("tuning", TUNING_CASES, TUNING_SEED)))
    chosen = list(map(InMemory, cases.load("train", experiment.cases, TRAINING_SEED)))
    training, cpu_s = train(experiment, chosen, data / "runs" / experiment.name)
    model = Model.untrained(variant, dataclasses.replace(config, precision="float32"))
    model.network.set_weights(training.best)
    voxel_ml = math.prod(config.grid_spacing_mm) / 1000

    def predict(case: InMemory) -> np.ndarray:
        batch = 16 if variant.sees == "slice" else 25
        return model.predict({variant.median: case.volume(variant.median)}, batch_size=batch)

    def score(cases: list[InMemory]) -> list[dict[str, float]]:
        return [score_case(predict(case), case.label(), voxel_ml) for case in cases]

    noted = facts(experiment, training, cpu_s)
    return Trial(noted, predict, score, tuning, chosen[WATCHED_CASES:])


def run(experiment: Experiment, data: Path, results: Path) -> None:
    """Train one, score it on the tuning cases, and note its line."""
    trial = try_out(experiment, data)
    row = trial.facts
    if experiment.variant == "lnet":
        rows = lnet_rows(trial.predict, trial.tuning)
        append(results / "experiments_lnet.csv", [row | r for r in rows])
        return
    row |= summary(trial.score(trial.tuning))
    seen = trial.score(trial.training_cases[: experiment.training_scored])
    for name in ("whole", "tumor"):
        row[f"{name}_on_training_cases"] = np.mean([s[name] for s in seen]) if seen else math.nan
    append(results / "experiments.csv", [row])
    print(row, flush=True)


def finished(table: Path) -> set[str]:
    """Name the experiments whose line is there."""
    if not table.exists():
        return set()
    with table.open(encoding="utf-8", newline="") as stream:
        return {row["name"] for row in csv.DictReader(stream)}


def main() -> None:
    """Run the experiments that are named and have no line yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [experiment.name for experiment in EXPERIMENTS]
    parser.add_argument("name", nargs="+", choices=names)
    parser.add_argument("--data", type=Path, required=True, help="folder of phantoms and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    wanted, data, results = vars(parser.parse_args()).values()
    for experiment in EXPERIMENTS:
        lnet = "_lnet" if experiment.variant == "lnet" else ""
        if experiment.name in set(wanted) - finished(results / f"experiments{lnet}.csv"):
            run(experiment, data, results)


if __name__ == "__main__":
    main()
