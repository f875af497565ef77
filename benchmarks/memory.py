"""Peak memory for the largest CT of KiTS19, 1059x512x512 as float32, in processes of their own."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.cases import FOLDER

RESULT = Path(__file__).parents[1] / "book" / "results" / "memory.csv"
SHAPE, SPACING_MM = (1059, 512, 512), (0.5, 0.8, 0.8)
TASKS = {
    "import": "import tunet_lib.preprocess, tunet_lib.scans",
    "prepare": """
from tunet_lib.config import Config
from tunet_lib.kits19 import find_cases
from tunet_lib.preprocess import prepare_case
import tempfile
prepare_case(find_cases({folder!r})[0], tempfile.mkdtemp(), Config.preset("paper"))
""",
    "load the networks": """
from tunet_lib.predict import COURSE_WEIGHTS, find_models, in_turn
import numpy as np
for folders in find_models(COURSE_WEIGHTS):
    for model in in_turn(folders):
        shape = model.variant.patch_shape(model.config)
        model.predict_batch(np.zeros((1, *shape, 1), np.float32))
""",
    "predict": """
from tunet_lib.kits19 import find_cases
from tunet_lib.predict import COURSE_WEIGHTS, predict_scan
from tunet_lib.scans import open_scan, save_label
import tempfile
scan = open_scan(find_cases({folder!r})[0].image_path)
save_label(predict_scan(scan, COURSE_WEIGHTS), scan, tempfile.mkdtemp() + "/label.nii.gz")
""",
}


def largest_case(shape: tuple[int, int, int] = SHAPE) -> Path:
    """Write a CT and a label map of this size, once; the voxels repeat a few slices."""
    from tunet_lib.kits19 import IMAGE_NAME, save_case
    from tunet_lib.nifti import nifti_of, write_nifti
    from tunet_lib.phantom import make_phantom
    from tunet_lib.scans import ipl_affine

    folder = FOLDER / f"largest_{shape[0]}"
    case = folder / "case_00000"
    if not (case / IMAGE_NAME).exists():  # it is written last
        few, label, _ = make_phantom(np.random.default_rng(1), (64, *shape[1:]), (4, 0.8, 0.8))
        index = np.arange(shape[0]) * 64 // shape[0]
        save_case(case, None, label[index], spacing_mm=SPACING_MM)
        volume_hu = few[index].astype(np.float32)
        header = nifti_of(volume_hu, ipl_affine(SPACING_MM)).header
        write_nifti(case / IMAGE_NAME, volume_hu, header, compresslevel=None)
    return folder


def peak_gb(code: str) -> tuple[float, float]:
    """Run code in a process of its own; give its peak resident memory and its time."""
    # Not getrusage: its maximum is handed on from the process that started this one.
    report = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    return int(done.stdout.split()[-1]) * 1024 / 1e9, time.perf_counter() - start_s


def main() -> None:
    """Measure, print, and write the CSV."""
    folder = str(largest_case())
    rows = []
    for name, code in TASKS.items():
        gb, seconds = peak_gb(code.format(folder=folder))
        rows.append({"task": name, "peak_gb": round(gb, 2), "time_s": round(seconds, 1)})
        print(rows[-1], flush=True)
    with RESULT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
