"""Choose L-Net's threshold and margin for a run: python book/choose_lnet.py RUN --tuning DATA.

The L-Nets of fold 0 predict the tuning phantoms (seed of their own, no case of the study). Of all
pairs whose mask keeps at least 95 % of the tumor, on average, the one with the smallest mask is
taken, and written into the configuration of the run and of its networks: it decides nothing about
their training. The table goes to book/results/lnet_masks.csv.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from tunet_lib.config import LOCALIZERS, Config
from tunet_lib.ensemble import mean_maps
from tunet_lib.localization import lnet_mask
from tunet_lib.metrics import dice
from tunet_lib.model import Model
from tunet_lib.phantom import write_phantoms
from tunet_lib.preprocess import prepare_cases
from tunet_lib.runs import open_run

RESULT = Path(__file__).parent / "results" / "lnet_masks.csv"
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
MARGINS_MM = (0.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0)
KEPT, LARGEST = 0.95, 3.0  # of the tumor; times the whole's volume


def mask_figures(mask: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Say what a mask keeps of a label map, and how large it is beside its whole region.

    A share of nothing is nan.
    """
    whole, tumor = label > 0, label == 2
    return {
        "dsc": dice(mask, whole),
        "tumor_kept": _share(mask & tumor, tumor),
        "whole_kept": _share(mask & whole, whole),
        "volume_ratio": _share(mask, whole),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else math.nan


def masks_table(
    probs: list[np.ndarray], labels: list[np.ndarray], config: Config
) -> list[dict[str, float]]:
    """Give the mean figures over the cases for each threshold and margin."""
    rows = []
    for threshold in THRESHOLDS:
        for margin_mm in MARGINS_MM:
            chosen = dataclasses.replace(config, lnet_threshold=threshold, lnet_margin_mm=margin_mm)
            figures = [
                mask_figures(lnet_mask(prob, chosen), label)
                for prob, label in zip(probs, labels, strict=True)
            ]
            row = {"threshold": threshold, "margin_mm": margin_mm, "cases": len(figures)}
            row |= {name: float(np.nanmean([f[name] for f in figures])) for name in figures[0]}
            row["tumor_kept_worst"] = float(np.nanmin([f["tumor_kept"] for f in figures]))
            row["volume_ratio_worst"] = float(np.nanmax([f["volume_ratio"] for f in figures]))
            rows.append(row)
    return rows


def choose(rows: list[dict[str, float]]) -> dict[str, float]:
    """Take the smallest mask that keeps enough; where none does, the one that keeps most."""
    enough = [row for row in rows if row["tumor_kept"] >= KEPT]
    if enough:
        return min(enough, key=lambda row: row["volume_ratio"])
    small = [row for row in rows if row["volume_ratio"] <= LARGEST] or rows
    return max(small, key=lambda row: row["tumor_kept"])


def main() -> None:
    """Choose, and write it into the run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--tuning", type=Path, required=True, help="folder of tuning phantoms")
    parser.add_argument("--cases", type=int, default=32)
    parser.add_argument("--looks", choices=["portal", "wide"], default="portal")
    parser.add_argument("--result", type=Path, default=RESULT)
    folder, tuning, count, looks, result = vars(parser.parse_args()).values()
    run = open_run(folder)
    phantoms = write_phantoms(tuning / "phantoms", count, seed=77002, looks=looks)
    cases, failures = prepare_cases(phantoms, tuning / "prepared", run.config)
    assert not failures, failures
    folders = [run.model_folder((name, 0)) for name in LOCALIZERS]
    models = [Model.load(files.path) for files in folders if files.is_trained]

    def predict(case: Any) -> np.ndarray:
        volumes = {median: np.asarray(case.volume(median), np.float32) for median in (False, True)}
        return mean_maps(model.predict(volumes) for model in models)[..., 0]

    rows = masks_table(
        [predict(c) for c in cases], [np.asarray(c.label()) for c in cases], run.config
    )
    with result.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 4) for k, v in row.items()} for row in rows)
    best = choose(rows)
    print(best)
    for path in (folder / "config.json", *folder.glob("models/*/*/config.json")):
        config = dataclasses.replace(
            Config.load(path), lnet_threshold=best["threshold"], lnet_margin_mm=best["margin_mm"]
        )
        config.save(path)


if __name__ == "__main__":
    main()
