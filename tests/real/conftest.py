"""Real scans: the folder that TUNET_REAL_DATA names holds kits19/, ct/ and kits19_slices.npz."""

import os
from pathlib import Path

import pytest

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def real():
    folder = os.environ.get("TUNET_REAL_DATA")
    if not folder:
        pytest.skip("TUNET_REAL_DATA names no folder of real scans")
    return Path(folder)


@pytest.fixture
def report(request):
    """Note what was measured, to be shown below the results even if all pass."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter, config):
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("measured on real data")
        for line in figures:
            terminalreporter.write_line(line)
