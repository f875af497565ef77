"""What moved the needle: python book/ablations.py --data DATA changes a recipe part by part.

Each row of `ABLATIONS` differs from its base in one thing. Each is trained with three seeds, so
that a difference can be held against the noise of training the same thing again. Cases, grid and
scores are those of ``experiments.py``: no case of the study is looked at. The results are
book/results/ablations.csv (a line a training) and book/results/ablation_cases.csv (a line a
training and case); what is in the first is not run again.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from experiments import (
    MIRROR,
    PLAIN,
    RESULTS,
    SPACE,
    STRONG,
    UNIFORM,
    Experiment,
    append,
    finished,
    summary,
    try_out,
)

SEEDS = (2019, 2020, 2021)
PLANE: dict[str, Any] = MIRROR | {"first_prob": 0.05, "epochs": 5}
GREY = {name: STRONG[name] for name in ("gain", "shift")}
SHAPE = {name: STRONG[name] for name in ("rotation_deg", "zoom")} | {"mirror": True}
HALF: dict[str, Any] = {
    "patch_shape": (24, 40, 40),
    "patch_stride": (12, 10, 10),
    "patches_per_case": 4,
    "batch_size": 4,
}

# What is changed, the network, the fields that differ, and the loss.
ABLATIONS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "2d": ("U-Net 2D, the recipe", "unet2d", PLANE, "dice"),
    "2d_1deg": ("only the paper's rotation by up to 1 degree", "unet2d", PLANE | PLAIN, "dice"),
    "2d_shape": ("gray values left alone", "unet2d", PLANE | PLAIN | SHAPE, "dice"),
    "2d_grey": ("shapes left alone", "unet2d", PLANE | PLAIN | GREY, "dice"),
    "2d_entropy": ("plus a tenth of cross-entropy", "unet2d", PLANE, "cross-entropy"),
    "2d_uniform": ("slices drawn uniformly", "unet2d", PLANE | UNIFORM, "dice"),
    "2d_layer": ("channels normalized together", "unet2d", PLANE | {"norm_groups": 1}, "dice"),
    "2d_clip": (
        "HU cut to −80 to 300 before all",
        "unet2d",
        PLANE | {"clip_hu": (-80.0, 300.0)},
        "dice",
    ),
    "2d_deep": ("heads on lower levels as well", "unet2d", PLANE, "each level"),
    "3d": ("U-Net 3D, the recipe with batch 2", "unet3d", SPACE, "dice"),
    "3d_batch8": ("batch 8, a quarter of the steps", "unet3d", SPACE | {"batch_size": 8}, "dice"),
    "3d_half": (
        "windows of half the height, twice as many",
        "unet3d",
        SPACE | HALF,
        "dice",
    ),
    "3d_plane": (
        "windows of the whole plane and half the height",
        "unet3d",
        SPACE
        | {
            "patch_shape": (24, 80, 80),
            "patch_stride": (12, 80, 80),
            "patches_per_case": 1,
            "batch_size": 1,
        },
        "dice",
    ),
    "3d_deep": ("heads on lower levels, in 3D", "unet3d", SPACE, "each level"),
    "tunet": ("TuNet, the recipe with batch 2", "tunet", SPACE, "dice"),
    "tunet_half": (
        "windows of half the height, for TuNet",
        "tunet",
        SPACE | HALF,
        "dice",
    ),
    "tunet_first": ("W-Net first, T-Net from half way on", "tunet", SPACE, "whole first"),
}


def trainings(ablations: list[str], seeds: list[int]) -> list[Experiment]:
    """Give all trainings, one seed after the other."""
    return [
        Experiment(f"{name}_{seed}", what, variant, config, loss, seed=seed)
        for seed, name in product(seeds, ablations)
        for what, variant, config, loss in [ABLATIONS[name]]
    ]


def run(experiment: Experiment, data: Path, results: Path) -> None:
    """Train one and note what each tuning case scores."""
    trial = try_out(experiment, data)
    scores = trial.score(trial.tuning)
    name = {"ablation": experiment.name.rpartition("_")[0], "seed": experiment.seed}
    cases = [
        name | {"case_id": case.case_id} | score
        for case, score in zip(trial.tuning, scores, strict=True)
    ]
    append(results / "ablation_cases.csv", cases)
    append(results / "ablations.csv", [name | trial.facts | summary(scores)])


def main() -> None:
    """Run what is missing of the ablations that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", choices=[*ABLATIONS, []], help="by default all")
    parser.add_argument("--data", type=Path, required=True, help="folder of phantoms and runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments = parser.parse_args()
    for experiment in trainings(arguments.name or list(ABLATIONS), arguments.seeds):
        if experiment.name not in finished(arguments.results / "ablations.csv"):
            run(experiment, arguments.data, arguments.results)


if __name__ == "__main__":
    main()
