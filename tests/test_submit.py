"""What cluster/submit hands in, to a stand-in for sbatch; on a real Slurm: tests/slurm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUBMIT = Path(__file__).parents[1] / "cluster" / "submit"
SBATCH = """#!/bin/bash
count=$(cat count 2>/dev/null || echo 100)
echo $((count + 1)) | tee count
{ printf '%s\\n' "$@"; cat; } >"script_$((count + 1))"
"""


@pytest.fixture
def submit(tmp_path):
    if sys.platform != "linux":
        pytest.skip("clusters have GNU's realpath, and a later bash than macOS")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    (tmp_path / "kits19").mkdir()
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def call(*arguments):
        done = subprocess.run(
            ["bash", SUBMIT, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        scripts = sorted(tmp_path.glob("script_*"))
        return done, [script.read_text(encoding="utf-8") for script in scripts]

    return call


@pytest.mark.parametrize(
    ("arguments", "array"),
    [
        ([], "--array=0-49%20"),
        (["--array=3,7-9"], "--array=3,7-9%20"),  # a repair keeps to the limit,
        (["--array=3,7-9%2"], "--array=3,7-9%2"),  # or has its own
    ],
)
def test_the_three_jobs(submit, arguments, array):
    done, (prepare, train, score) = submit(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"Submitted: prepare 101, train 102 ({array[8:]}), score 103" in done.stdout
    assert "tunet prepare" in prepare
    assert array in train.splitlines()
    # One case that cannot be scored leaves the table of all others, and fails the job.
    assert "scored=$?; tunet table" in score
    assert "&& (exit $scored)" in score


@pytest.mark.parametrize("arguments", [["--help"], ["--array", "3"], ["7"], ["--array=1", "x"]])
def test_anything_else_is_refused_before_anything_is_submitted(submit, arguments):
    done, scripts = submit(*arguments)
    assert (done.returncode, scripts) == (2, [])
    assert "Usage: " in done.stderr
