"""Real scans: the folder that TUNET_REAL_DATA names holds kits19/, ct/ and kits19_slices.npz."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real():
    folder = os.environ.get("TUNET_REAL_DATA")
    if not folder:
        pytest.skip("TUNET_REAL_DATA names no folder of real scans")
    return Path(folder)


@pytest.fixture
def report(record_property):
    """Note what was measured, to be shown below the results even if all pass."""
    return lambda line: record_property("measured", line)


def pytest_terminal_summary(terminalreporter):
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
    ]
    figures = [
        line
        for report in reports
        if report.when == "call"
        for name, line in report.user_properties
        if name == "measured"
    ]
    if figures:
        terminalreporter.section("measured on real data")
        for line in figures:
            terminalreporter.write_line(line)
