"""The whole study, small, on 20 real KiTS19 label maps with CTs simulated around them."""

import csv
import subprocess
import sys
import time

import nibabel as nib
import numpy as np

from tunet_lib.config import Config
from tunet_lib.evaluation import SYSTEMS
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME, find_cases
from tunet_lib.nifti import nifti_of, write_nifti
from tunet_lib.phantom import simulate_ct
from tunet_lib.scans import load_label_map

CASES = 20
SMALL = Config.preset(
    "course",
    grid_shape=(24, 40, 40),
    lnet_shape=(12, 20, 20),
    patch_shape=(16, 24, 24),
    patch_stride=(8, 16, 16),
    levels=3,
    filters=4,
    norm_groups=4,
    patches_per_case=2,
    epochs=2,
)


def smallest(cases):
    return sorted(cases, key=lambda case: np.prod(nib.load(case.label_path).shape))[:CASES]


def test_a_run_ends_with_all_ten_rows(real, tmp_path, report):
    start_s = time.monotonic()
    data, run = tmp_path / "data", tmp_path / "run"
    for index, case in enumerate(smallest(find_cases(real / "kits19"))):
        label_map = load_label_map(case.label_path)
        rng = np.random.default_rng([2019, index])
        volume_hu = simulate_ct(label_map.label, label_map.spacing_mm, rng)
        folder = data / case.case_id
        header = nifti_of(volume_hu, label_map.affine).header
        write_nifti(folder / IMAGE_NAME, volume_hu, header, compresslevel=1)
        (folder / LABEL_NAME).symlink_to(case.label_path)
    made_s = time.monotonic() - start_s
    SMALL.save(tmp_path / "small.json")
    command = [sys.executable, "-m", "tunet_lib.cli", "run", data, run]
    command += ["--config", tmp_path / "small.json", "--jobs", "2"]
    shown = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=2400, check=False
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    table = shown.stdout[shown.stdout.index("Dice similarity") :]
    report(f"tunet run on {CASES} real label maps, {SMALL.epochs} epochs each:")
    report(table)
    total_s = time.monotonic() - start_s
    report(f"simulating {made_s:.0f} s, all {total_s:.0f} s")
    with (run / "table_1.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["system"] for row in rows] == list(SYSTEMS)
    assert all((row["folds"], row["cases"]) == ("5", str(CASES)) for row in rows)
    assert all(value != "" for row in rows for value in row.values())
    assert all(0 <= float(row["whole_mean"]) <= 1 for row in rows)
