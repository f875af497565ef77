"""Train the networks for CTs from anywhere: python book/wide.py lnet tunet --data DATA.

One L-Net and one TuNet, on phantoms of any look (`tunet_lib.phantom.wide`), after the idea of
SynthSeg (Billot et al. 2023); book/wide.json says how. Each phantom is seen once an epoch; the
best epoch is that of `WATCHED` other phantoms. Networks go to DATA/wide, and from there to
tunet_lib/wide_weights/, their learning curves to book/results/; a training that was cut short
goes on. What TuNet's tumor is worth at other thresholds goes to book/results/wide_thresholds.csv:
it tells how far a threshold alone could get.

What comes with the library was trained in two rounds: 20 epochs in windows of the grid's height, on
phantoms of the first generator (``patch_shape`` (48, 40, 40), ``patch_stride`` (48, 10, 10),
``patches_per_case`` 1, ``batch_size`` 8, ``learning_rate`` 0.002, ``stop_patience`` 20), and from
there, by ``--start``, as book/wide.json says, on phantoms of the second.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from experiments import InMemory
from publish_results import publish_model

from tunet_lib.config import VARIANTS, Config
from tunet_lib.folds import Split
from tunet_lib.metrics import dice
from tunet_lib.model import Model
from tunet_lib.model_folder import ModelFolder
from tunet_lib.phantom import write_phantoms
from tunet_lib.predict import WIDE_WEIGHTS
from tunet_lib.preprocess import prepare_cases
from tunet_lib.training import Training, train

CONFIG = Path(__file__).with_name("wide.json")
RESULTS = Path(__file__).parent / "results"
SEED = 77003  # apart from the study's and the tuning cases'
TRAINING, WATCHED = 512, 32
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 0.9999)


def main() -> None:
    """Make the phantoms, prepare them, and train the networks that are named, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", choices=["lnet", "tunet"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder of networks to go on from, by name")
    arguments = parser.parse_args()
    config = Config.load(CONFIG)
    phantoms = write_phantoms(
        arguments.data / "wide_phantoms", WATCHED + TRAINING, SEED, looks="wide"
    )
    prepared, failures = prepare_cases(phantoms, arguments.data / "wide_prepared", config)
    if failures:
        raise RuntimeError(f"not prepared: {failures}")
    cases = [InMemory(case) for case in prepared]
    split = Split(0, cases[WATCHED:], cases[:WATCHED])
    for name in arguments.networks:
        folder = arguments.data / "wide" / name
        if arguments.start:
            go_on_from(arguments.start / name, folder, split, config)
        train(VARIANTS[name], config, split, folder=folder, on_epoch=print)
        files = ModelFolder(folder)
        publish_model(files, WIDE_WEIGHTS / name)
        shutil.copyfile(files.history_path, RESULTS / f"wide_{name}_history.csv")
        if name == "tunet":
            write_thresholds(Model.load(folder), split.validation)


def go_on_from(start: Path, folder: Path, split: Split, config: Config) -> None:
    """Leave the checkpoint of a training that has the weights of `start`, and no epoch yet."""
    files = ModelFolder(folder)
    if files.is_trained or files.checkpoint.exists():
        return
    trained = Model.load(start)
    training = Training(trained.variant, config, split)
    training.network.set_weights(trained.network.get_weights())
    folder.mkdir(parents=True, exist_ok=True)
    training.save(files.checkpoint)


def write_thresholds(tunet: Model, watched: Sequence[InMemory]) -> None:
    """Score the tumor maps of the watched phantoms at each threshold, on the grid."""
    sums = {threshold: Counter[str]() for threshold in THRESHOLDS}
    count = Counter[bool]()
    voxel_ml = float(np.prod(tunet.config.grid_spacing_mm)) / 1000
    for case in watched:
        true = case.label() == 2
        has_tumor = bool(true.any())
        count[has_tumor] += 1
        median = tunet.variant.median
        prob = tunet.predict({median: case.volume(median)})[..., 1]
        for threshold, total in sums.items():
            found = prob >= threshold
            if has_tumor:
                total["tumor"] += dice(found, true)
                total["sensitivity"] += (found & true).sum() / true.sum()
            else:
                total["ml_without_tumor"] += found.sum() * voxel_ml
    with (RESULTS / "wide_thresholds.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        fields = {"tumor": True, "sensitivity": True, "ml_without_tumor": False}
        table.writerow(["threshold", *fields, "with_tumor", "without"])
        for threshold, total in sums.items():
            means = [round(total[f] / count[kind], 4) for f, kind in fields.items()]
            table.writerow([threshold, *means, count[True], count[False]])


if __name__ == "__main__":
    main()
