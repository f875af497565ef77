"""Find the recipe: python book/experiments.py NAME --data DATA trains, scores and notes one line.

The experiments are the table `EXPERIMENTS`, oldest first: each says what it changes and why. The
phantoms that train and those that score (the tuning cases) have seeds of their own, apart from
the study's, so that no case of the study is looked at before the recipe is written down.

One experiment is one process. Started again it goes on from its checkpoint; finished, it adds
its line to book/results/experiments.csv (L-Net: experiments_lnet.csv).
"""

from __future__ import annotations

import argparse
import csv
import math
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from tunet_lib.config import VARIANTS, Config, Variant
from tunet_lib.files import atomic_path
from tunet_lib.losses import DiceLoss
from tunet_lib.metrics import dice
from tunet_lib.model import Model
from tunet_lib.networks import build
from tunet_lib.patches import PatchSource
from tunet_lib.phantom import write_phantoms
from tunet_lib.preprocess import prepare_cases
from tunet_lib.quiet import keras, tf
from tunet_lib.windows import cut_patch

RESULTS = Path(__file__).parent / "results"
TRAINING_SEED, TUNING_SEED = 77001, 77002  # the study's is 2019
TUNING_CASES = 32
SAVE_EVERY = 100  # steps
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
CLASSES_ML = (0, 10, 30, 100, math.inf)
BASE: dict[str, Any] = {
    "levels": 4,
    "patch_shape": (48, 40, 40),  # all slices, half of the plane
    "patch_stride": (48, 10, 10),  # the paper's 25 windows
    "precision": "bfloat16",
}


@dataclass(frozen=True)
class Augmentation:
    """How far a training patch may be changed, uniformly drawn up to these limits.

    `rotation_deg` is in plane; `scale` zooms by 1 ± scale, all axes alike; `flip` mirrors left
    and right half of the time (livers on the wrong side: no such patient is ever tested);
    `gain` and `shift` change the intensities by x (1 ± gain) ± shift (in SD of the volume, about
    150 HU); `noise` adds white noise of up to that SD.
    """

    rotation_deg: float = 1.0
    scale: float = 0.0
    flip: bool = False
    gain: float = 0.0
    shift: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class Experiment:
    """One training: what differs from the others, and all that decides it.

    Attributes
    ----------
    name, changed
        What it is called, and what it asks, for the CSV.
    variant, config
        The network, and the fields that differ from the preset `course` and `BASE`.
    steps, batch, accumulate
        Updates; patches at a time; batches whose gradients are averaged for one update.
    learning_rate, warmup
        Its peak, reached over the first steps, then falling to zero along half a cosine.
    ema
        Decay of the averaged weights, which are the ones that are scored.
    cross_entropy, cross_entropy_in
        Weight of the mean binary cross-entropy (summed over the channels), and between which
        shares of the steps it counts.
    kidney_dice
        Weight of a third Dice, of the kidney without its tumor: whole x (1 - tumor).
    head_bias
        First bias of the last layers: -3 begins with a probability of 0.05 instead of 0.5.
    cases, training_scored
        Training cases; how many of them are scored as well, for the gap to unseen ones.
    start
        An experiment whose averaged weights are the first ones.
    """

    name: str
    changed: str
    variant: str = "tunet"
    config: dict[str, Any] = field(default_factory=dict)
    steps: int = 480
    batch: int = 2
    accumulate: int = 1
    learning_rate: float = 2e-3
    warmup: int = 50
    ema: float = 0.99
    cross_entropy: float = 0.0
    cross_entropy_in: tuple[float, float] = (0.0, 1.0)
    kidney_dice: float = 0.0
    head_bias: float = 0.0
    cases: int = 194
    training_scored: int = 0
    augmentation: Augmentation = Augmentation()
    start: str = ""
    seed: int = 0

    @property
    def full_config(self) -> Config:
        """Give all numbers of the method."""
        return Config.preset("course", **(BASE | self.config))


STRONG = Augmentation(rotation_deg=10, scale=0.15, gain=0.1, shift=0.1, noise=0.15)
FRUIT_FLY: dict[str, Any] = {
    "variant": "unet2d",
    "steps": 1500,
    "batch": 16,
    "training_scored": 16,
}
EXPERIMENTS = (
    Experiment("b2", "base: Dice, batch 2, peak 2e-3"),
    Experiment(
        "b8", "batch 8 at equal voxels: more phantoms a step", batch=8, steps=120, warmup=20
    ),
    Experiment("kidney", "third Dice: kidney without tumor", kidney_dice=1.0),
    Experiment(
        "ce_first",
        "cross-entropy in the first quarter",
        cross_entropy=1.0,
        cross_entropy_in=(0, 0.25),
    ),
    Experiment("bias", "first probability 0.05 instead of 0.5", head_bias=-3.0),
    Experiment("lr5e-4", "peak 5e-4", learning_rate=5e-4),
    Experiment("lr1e-3", "peak 1e-3", learning_rate=1e-3),
    Experiment("lr4e-3", "peak 4e-3", learning_rate=4e-3),
    Experiment("u2d", **FRUIT_FLY, changed="base in 2D, where a run is cheap: Dice, batch 16"),
    Experiment("u2d_aug", **FRUIT_FLY, changed="stronger augmentation", augmentation=STRONG),
    Experiment(
        "u2d_flip",
        **FRUIT_FLY,
        changed="stronger augmentation and left-right flips",
        augmentation=replace(STRONG, flip=True),
    ),
    Experiment(
        "u2d_kidney", **FRUIT_FLY, changed="third Dice: kidney without tumor", kidney_dice=1.0
    ),
    Experiment(
        "u2d_sample",
        **FRUIT_FLY,
        changed="Dice over the sample, cross-entropy 0.2",
        config={"dice_over": "sample"},
        cross_entropy=0.2,
    ),
    Experiment("lnet", variant="lnet", steps=700, changed="L-Net: Dice, batch 2, peak 2e-3"),
    Experiment(
        "lnet_aug",
        variant="lnet",
        steps=700,
        changed="L-Net: stronger augmentation",
        augmentation=STRONG,
    ),
    Experiment("f4", "4 filters instead of 8", config={"filters": 4, "norm_groups": 4}),
)


@dataclass
class Case:
    """A prepared case in memory."""

    case_id: str
    volume_plain: np.ndarray
    volume_median: np.ndarray
    truth: np.ndarray
    voxel_ml: float

    def volume(self, median: bool) -> np.ndarray:
        """Give the normalized volume, float32."""
        return self.volume_median if median else self.volume_plain

    def label(self) -> np.ndarray:
        """Give the label map."""
        return self.truth


def load_cases(data: Path, name: str, count: int, seed: int, config: Config) -> list[Case]:
    """Make the phantoms of `seed` that are not there yet, prepare them and read them."""
    phantoms = write_phantoms(data / name / "phantoms", count, seed)
    folder = data / name / f"prepared_{'x'.join(map(str, config.grid_shape))}"
    prepared, failures = prepare_cases(phantoms, folder, config)
    if failures:
        raise RuntimeError(f"not prepared: {failures}")
    return [
        Case(
            case.case_id,
            np.array(case.volume(False), np.float32),
            np.array(case.volume(True), np.float32),
            np.array(case.label()),
            math.prod(config.grid_spacing_mm) / 1000,
        )
        for case in prepared
    ]


def draw_patch(
    source: PatchSource, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a place of a case and give image (z, y, x, 1) and target (z, y, x, channels)."""
    if augmentation.scale or augmentation.flip or augmentation.rotation_deg > 1:
        image, label = _transformed_patch(source, augmentation, rng)
        masks = {"whole": label > 0, "tumor": label == 2}
        channels = [masks[region] for region in source.variant.regions]
        image, target = image[..., None], np.stack(channels, axis=-1).astype(np.float32)
    else:
        limit = augmentation.rotation_deg
        image, target = source.patch(source.random_start(rng), rng.uniform(-limit, limit))
    gain = 1 + rng.uniform(-augmentation.gain, augmentation.gain)
    image = image * np.float32(gain) + rng.uniform(-augmentation.shift, augmentation.shift)
    if augmentation.noise:
        image += rng.uniform(0, augmentation.noise) * rng.standard_normal(image.shape)
    return image.astype(np.float32), target


def _transformed_patch(
    source: PatchSource, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample a patch along turned, stretched and mirrored axes about its own center."""
    volume, label = source.arrays()
    start, shape = source.random_start(rng), source.variant.patch_shape(source.config)
    turn = np.deg2rad(rng.uniform(-augmentation.rotation_deg, augmentation.rotation_deg))
    scale = 1 + rng.uniform(-augmentation.scale, augmentation.scale)
    mirror = -1 if augmentation.flip and rng.random() < 0.5 else 1
    matrix = np.array(
        [
            [1, 0, 0],
            [0, np.cos(turn), -np.sin(turn) * mirror],
            [0, np.sin(turn), np.cos(turn) * mirror],
        ]
    )
    if shape[0] > 1:
        matrix[0, 0] = scale
    matrix[1:] *= scale
    # Cut first: to transform a few voxels of a float32 volume does not need all of it.
    margin = math.ceil(0.25 * max(shape[1:]))
    half = (np.array(shape) - 1) / 2
    pieces = [cut_patch(array, start, shape, margin=margin) for array in (volume, label)]
    offset = half + np.array([0, margin, margin]) - matrix @ half
    image = ndimage.affine_transform(
        pieces[0].astype(np.float32), matrix, offset, shape, order=1, mode="nearest"
    )
    return image, ndimage.affine_transform(
        pieces[1], matrix, offset, shape, order=0, mode="nearest"
    )


def draw_batch(
    sources: list[PatchSource], experiment: Experiment, step: int, part: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the patches of one batch, each of another case; the same for the same step."""
    rng = np.random.default_rng([experiment.seed, step, part])
    chosen = rng.choice(len(sources), experiment.batch, replace=False)
    pairs = [draw_patch(sources[k], experiment.augmentation, rng) for k in chosen]
    images, targets = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    if experiment.variant.startswith("unet2d"):
        return images[:, 0], targets[:, 0]
    return images, targets


class Trainer:
    """Network, optimizer, averaged weights and everything else that a step changes.

    `guard` counts what went wrong: a step whose loss or gradient is not finite (its update is
    left out), and weights or a state of the optimizer that are not finite. The latter can come
    with a finite loss: a kernel with an infinite Adam velocity never moves again.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        config, variant = experiment.full_config, VARIANTS[experiment.variant]
        keras.utils.set_random_seed(experiment.seed)
        self.model = build(variant, config)
        for weight in self.model.weights:
            if weight.path.endswith("probability/bias"):
                weight.assign(np.full(weight.shape, experiment.head_bias, np.float32))
        self.optimizer = keras.optimizers.Adam(
            experiment.learning_rate, beta_1=config.beta_1, beta_2=config.beta_2
        )
        self.optimizer.build(self.model.trainable_variables)
        self.dice = DiceLoss(config.dice_over, config.dice_epsilon)
        self.average = [np.array(value) for value in self.model.get_weights()]
        self.step = 0
        self.losses: list[list[float]] = []  # Dice of each channel, of each step
        self.cpu_s = 0.0
        self.guard = {"loss or gradient": 0, "weights": 0, "optimizer": 0}
        self._gradients = tf.function(self._gradients_of, jit_compile=False)
        self._apply = tf.function(
            lambda gradients: self.optimizer.apply(gradients, self.model.trainable_variables),
            jit_compile=False,
        )

    def _gradients_of(self, image: Any, truth: Any, cross_entropy: Any) -> Any:
        spec = self.experiment
        with tf.GradientTape() as tape:
            prob = self.model(image, training=True)
            channels = [
                self.dice(truth[..., c : c + 1], prob[..., c : c + 1])
                for c in range(truth.shape[-1])
            ]
            total = tf.add_n(channels) + tf.add_n(self.model.losses)
            if spec.cross_entropy:
                each = keras.ops.binary_crossentropy(truth, prob)
                total += cross_entropy * tf.reduce_mean(each) * len(channels)
            if spec.kidney_dice:
                total += spec.kidney_dice * self.dice(
                    truth[..., :1] - truth[..., 1:], prob[..., :1] * (1 - prob[..., 1:])
                )
        gradients = tape.gradient(total, self.model.trainable_variables)
        return tf.stack(channels), gradients, tf.linalg.global_norm(gradients)

    def learning_rate(self) -> float:
        """Give the learning rate of the next step."""
        spec = self.experiment
        if self.step < spec.warmup:
            return spec.learning_rate * (self.step + 1) / spec.warmup
        done = (self.step - spec.warmup) / (spec.steps - spec.warmup)
        return spec.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def cross_entropy(self) -> float:
        """Give the weight of the cross-entropy in the next step."""
        first, last = (share * self.experiment.steps for share in self.experiment.cross_entropy_in)
        return self.experiment.cross_entropy if first <= self.step < last else 0.0

    def run_step(self, sources: list[PatchSource]) -> None:
        """Make one update."""
        spec, started = self.experiment, time.process_time()
        weight = tf.constant(self.cross_entropy())
        total, mean_loss = None, np.zeros(())
        for part in range(spec.accumulate):
            image, truth = draw_batch(sources, spec, self.step, part)
            loss, gradients, norm = self._gradients(image, truth, weight)
            mean_loss = mean_loss + (loss + 0 * norm).numpy() / spec.accumulate
            total = gradients if total is None else list(map(tf.add, total, gradients))
        if np.isfinite(mean_loss).all():
            self.optimizer.learning_rate.assign(self.learning_rate())
            self._apply([gradient / spec.accumulate for gradient in total])
        else:
            self.guard["loss or gradient"] += 1
        decay = min(spec.ema, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.average, self.model.weights, strict=True):
            mean += (1 - decay) * (value.numpy() - mean)
        self.step += 1
        self.losses.append(mean_loss.tolist())
        self.cpu_s += time.process_time() - started

    def check(self) -> None:
        """Count weights and states of the optimizer that are not finite."""
        for name, variables in (
            ("weights", self.model.weights),
            ("optimizer", self.optimizer.variables),
        ):
            bad = sum(not np.isfinite(keras.ops.convert_to_numpy(v)).all() for v in variables)
            self.guard[name] = max(self.guard[name], bad)

    def save(self, path: Path) -> None:
        """Write all of it as one file, atomically."""
        arrays = {f"weight_{i}": v for i, v in enumerate(self.model.get_weights())}
        arrays |= {f"average_{i}": v for i, v in enumerate(self.average)}
        arrays |= {f"optimizer_{i}": v.numpy() for i, v in enumerate(self.optimizer.variables)}
        arrays |= {f"guard {name}": np.array(count) for name, count in self.guard.items()}
        numbers = {"step": self.step, "cpu_s": self.cpu_s, "losses": self.losses}
        arrays |= {name: np.array(value) for name, value in numbers.items()}
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    def load(self, path: Path) -> None:
        """Go on where `save` was called."""
        with np.load(path) as arrays:
            self.model.set_weights([arrays[f"weight_{i}"] for i in range(len(self.average))])
            self.average = [arrays[f"average_{i}"] for i in range(len(self.average))]
            for i, variable in enumerate(self.optimizer.variables):
                variable.assign(arrays[f"optimizer_{i}"])
            self.guard = {name: int(arrays[f"guard {name}"]) for name in self.guard}
            self.step, self.cpu_s = int(arrays["step"]), float(arrays["cpu_s"])
            self.losses = arrays["losses"].tolist()

    def start_from(self, path: Path) -> None:
        """Take over the averaged weights of another experiment."""
        with np.load(path) as arrays:
            self.average = [arrays[f"average_{i}"] for i in range(len(self.average))]
        self.model.set_weights(self.average)


def train(
    experiment: Experiment, cases: list[Case], data: Path, pause: Path | None, until: int | None
) -> Trainer:
    """Train, or go on, or take what is finished; stop at step `until`, if given."""
    config, variant = experiment.full_config, VARIANTS[experiment.variant]
    trainer = Trainer(experiment)
    checkpoint = data / "runs" / f"{experiment.name}.npz"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        trainer.load(checkpoint)
    elif experiment.start:
        trainer.start_from(data / "runs" / f"{experiment.start}.npz")
    sources = [PatchSource(case, variant, config) for case in cases[: experiment.cases]]
    last = min(experiment.steps, until or experiment.steps)
    while trainer.step < last:
        wait(pause)
        trainer.run_step(sources)
        if trainer.step % 20 == 0:
            recent = np.mean(trainer.losses[-20:], axis=0).round(3)
            print(f"{trainer.step} loss {recent} {trainer.cpu_s:.0f} s", flush=True)
        if trainer.step % SAVE_EVERY == 0 or trainer.step == last:
            trainer.check()
            trainer.save(checkpoint)
    return trainer


def wait(pause: Path | None) -> None:
    """Sleep while the file `pause` exists."""
    while pause is not None and pause.exists():
        time.sleep(5)


def predict(model: keras.Model, variant: Variant, case: Case, config: Config) -> np.ndarray:
    """Predict as the library does: all windows of the configuration, averaged."""
    volumes = {variant.median: case.volume(variant.median)}
    batch = 16 if variant.sees == "slice" else 5
    return Model(model, variant, config).predict(volumes, batch_size=batch)


def averaged_model(trainer: Trainer) -> keras.Model:
    """Give a network with the averaged weights, in the precision of the training."""
    experiment = trainer.experiment
    model = build(VARIANTS[experiment.variant], experiment.full_config)
    model.set_weights(trainer.average)
    model.compile(jit_compile=False)  # XLA is many times slower here
    return model


def score_case(prob: np.ndarray, case: Case) -> dict[str, float]:
    """Score one case at the threshold 0.5, and its tumor at the others as well.

    ``sensitivity`` and ``precision`` are of tumor voxels; a case without any predicted tumor has
    a precision of 0. ``false_kidney_ml`` is the predicted tumor within the true whole on the side
    of the body that holds no true tumor, ``false_side_ml`` all predicted tumor on that side; nan
    where both sides hold one. The sides meet half way between the two kidneys.
    """
    truth, tumor = case.label() == 2, prob[..., 1] >= 0.5
    scores = {
        "whole": dice((prob[..., 0] >= 0.5) | tumor, case.label() > 0),
        "tumor": dice(tumor, truth),
        "sensitivity": float((tumor & truth).sum() / truth.sum()),
        "precision": float((tumor & truth).sum() / max(1, tumor.sum())),
        "tumor_ml": float(truth.sum() * case.voxel_ml),
        "false_kidney_ml": math.nan,
        "false_side_ml": math.nan,
    }
    for threshold in THRESHOLDS:
        scores[f"tumor_{threshold}"] = dice(prob[..., 1] >= threshold, truth)
    for side in healthy_sides(case.label()):
        false = tumor & side
        scores["false_side_ml"] = float(false.sum() * case.voxel_ml)
        scores["false_kidney_ml"] = float((false & (case.label() > 0)).sum() * case.voxel_ml)
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


def facts(trainer: Trainer) -> dict[str, Any]:
    """Give what is known of a training before it is scored."""
    spec = trainer.experiment
    config, variant = spec.full_config, VARIANTS[spec.variant]
    voxels = math.prod(variant.patch_shape(config)) * spec.batch * spec.accumulate * spec.steps
    wrong = [f"{name} {count}" for name, count in trainer.guard.items() if count]
    return {
        "name": spec.name,
        "what_changed": spec.changed,
        "variant": spec.variant,
        "start": spec.start,
        "steps": spec.steps,
        "batch": spec.batch * spec.accumulate,
        "learning_rate": spec.learning_rate,
        "cases": spec.cases,
        "million_voxels": round(voxels / 1e6, 1),
        "cpu_minutes": round(trainer.cpu_s / 60, 1),
        "processor": processor(),
        "precision_of_training": config.precision,
        "train_loss": " ".join(f"{loss:.3f}" for loss in np.mean(trainer.losses[-50:], axis=0)),
        "not_finite": "; ".join(wrong) or "none",
    }


def processor() -> str:
    """Name the processor, and whether it computes in bfloat16."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in values.items()}
    extra = " avx512_bf16" if "avx512_bf16" in named.get("flags", "") else ""
    return named.get("model name", platform.processor()) + extra


def lnet_rows(trainer: Trainer, cases: Iterable[Case], pause: Path | None) -> list[dict[str, Any]]:
    """Say, for thresholds and margins, what L-Net's mask keeps and how large it is.

    A margin is a dilation by so many grid voxels along each axis.
    """
    config, variant = trainer.experiment.full_config, VARIANTS[trainer.experiment.variant]
    model = averaged_model(trainer)
    found: dict[tuple[float, int], list[tuple[float, ...]]] = {}
    for case in cases:
        wait(pause)
        prob, label = predict(model, variant, case, config)[..., 0], case.label()
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
        rows.append(facts(trainer) | row)
    return rows


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add lines to a CSV."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    k: f"{v:.4f}" if isinstance(v, float) and k not in ("learning_rate",) else v
                    for k, v in row.items()
                }
            )


def main() -> None:
    """Run the experiment that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[experiment.name for experiment in EXPERIMENTS])
    parser.add_argument("--data", type=Path, required=True, help="folder of phantoms and runs")
    parser.add_argument("--pause", type=Path, help="sleep while this file exists")
    parser.add_argument("--until", type=int, help="stop at this step, to look at the losses")
    name, data, pause, until = vars(parser.parse_args()).values()
    experiment = next(e for e in EXPERIMENTS if e.name == name)
    config, variant = experiment.full_config, VARIANTS[experiment.variant]
    tuning = load_cases(data, "tuning", TUNING_CASES, TUNING_SEED, config)
    training = load_cases(data, "train", experiment.cases, TRAINING_SEED, config)
    trainer = train(experiment, training, data, pause, until)
    if trainer.step < experiment.steps:
        return
    if variant.network == "lnet":
        append(RESULTS / "experiments_lnet.csv", lnet_rows(trainer, tuning, pause))
        return
    model = averaged_model(trainer)

    def score(cases: list[Case]) -> list[dict[str, float]]:
        scores = []
        for case in cases:
            wait(pause)
            scores.append(score_case(predict(model, variant, case, config), case))
        return scores

    row = facts(trainer) | summary(score(tuning))
    seen = score(training[: experiment.training_scored])
    for name in ("whole", "tumor"):
        row[f"{name}_on_training_cases"] = np.mean([s[name] for s in seen]) if seen else math.nan
    append(RESULTS / "experiments.csv", [row])
    print(row)


if __name__ == "__main__":
    main()
