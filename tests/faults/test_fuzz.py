"""Hundreds of damaged files, the same in every run: taken, or refused, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.parametrize(("what", "count"), [("niftis", 300), ("side", 300), ("dicom", 60)])
def test_a_damaged_file_is_taken_or_refused_and_nothing_else(what, count):
    if what == "dicom":
        pytest.importorskip("highdicom", reason="the extra formats is not installed")
    threads = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(
        [sys.executable, FUZZ, what, str(count)],
        env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(map(str, FUZZ.parents[1:3]))},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    tally = json.loads(run.stdout)
    assert tally["what"] == []
    assert (tally["taken"] + tally["refused"], tally["other"]) == (count, 0)
    # Enough of either kind that both are tried.
    assert min(tally["taken"], tally["refused"]) > count // 8
    assert tally["slowest_s"] < 2
