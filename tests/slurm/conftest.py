"""A Slurm for the tests, where TUNET_SLURM is set and Slurm is installed."""

import os
import sys
from pathlib import Path

import loopback
import pytest

sys.path.append(str(Path(__file__).parents[1]))  # tiny scans and their configuration


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    if not os.environ.get("TUNET_SLURM"):
        pytest.skip("TUNET_SLURM is not set; tests on a real Slurm take minutes")
    if missing := loopback.missing_programs():
        pytest.skip(f"Slurm is not installed: {', '.join(missing)} missing")
    cluster = loopback.Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
