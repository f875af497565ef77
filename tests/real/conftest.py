"""Real scans: the folder that TUNET_REAL_DATA names holds kits19/, ct/ and kits19_slices.npz."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, and let something short follow.

    A process holds its next test while it is in one, and the other cannot take that over.
    """
    first = ["test_a_run_ends_with_all_ten_rows", "test_odd_label_files_load_like_the_rest"]
    rank = {name: place for place, name in enumerate(first)}
    items.sort(key=lambda item: rank.get(item.name, len(first)))


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
