"""What chapter 14 chooses a temperature on, and how far two trainings of the study differ."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BOOK = Path(__file__).parents[1] / "book"
pytestmark = pytest.mark.skipif(not (BOOK / "results").exists(), reason="the book is not there")


def load(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BOOK), *sys.path])
    spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_voxels_are_counted_by_what_is_said_of_them(monkeypatch):
    counts = load("measure_calibration", monkeypatch).counts
    found = counts(np.array([0, 0.5, 0.5, 1], np.float32), np.array([False, True, False, True]))
    assert found.shape == (256, 2)
    assert found[0].tolist() == [1, 0]
    assert found[128].tolist() == [2, 1]
    assert found[255].tolist() == [1, 1]
    assert found.sum(axis=0).tolist() == [4, 2]


def test_the_stored_counts_are_of_the_same_voxels():
    with (BOOK / "results" / "calibration.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    of = {
        system: np.array(
            [[int(r["voxels"]), int(r["tumor_voxels"])] for r in rows if r["system"] == system]
        )
        for system in ("tunet", "ensemble")
    }
    assert {counts.shape for counts in of.values()} == {(256, 2)}
    assert (of["tunet"].sum(axis=0) == of["ensemble"].sum(axis=0)).all()
    for counts in of.values():
        assert (counts[:, 1] <= counts[:, 0]).all()
        assert counts[128:, 1].sum() > counts[128:, 0].sum() / 2  # more right than wrong


def test_a_table_begins_with_the_names_and_grows(monkeypatch, tmp_path):
    seeds = load("measure_seeds", monkeypatch)
    monkeypatch.setattr(seeds, "RESULTS", tmp_path)
    for seed in (2020, 2021):
        seeds.append("seeds.csv", [{"seed": seed, "whole": 0.9}])
    assert (tmp_path / "seeds.csv").read_text() == "seed,whole\n2020,0.9\n2021,0.9\n"
