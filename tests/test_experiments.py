import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from tunet_lib.config import VARIANTS

PATH = Path(__file__).parents[1] / "book" / "experiments.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the book is not there")
SMALL = {"filters": 2, "norm_groups": 2, "levels": 2, "epochs": 2, "precision": "float32"}


@pytest.fixture(scope="module")
def experiments():
    spec = importlib.util.spec_from_file_location("experiments", PATH)
    module = sys.modules["experiments"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def label():
    label = np.zeros((8, 16, 16), np.uint8)
    label[2:6, 4:10, 2:6] = 1
    label[2:6, 4:10, 10:14] = 1
    label[3:5, 5:8, 10:12] = 2
    return label


def test_names_are_unique_and_every_configuration_is_valid(experiments):
    names = [e.name for e in experiments.EXPERIMENTS]
    assert len(names) == len(set(names))
    for experiment in experiments.EXPERIMENTS:
        assert experiment.full_config.levels == 4
        assert experiment.variant in VARIANTS
        assert experiment.loss in experiments.LOSSES


def test_false_tumor_is_counted_on_the_side_without_one(experiments, label):
    prob = np.zeros((*label.shape, 2), np.float32)
    prob[..., 0] = label > 0
    prob[..., 1] = label == 2
    perfect = experiments.score_case(prob, label, 0.5)
    assert perfect["whole"] == perfect["tumor"] == perfect["precision"] == 1
    assert perfect["tumor_ml"] == 6
    assert perfect["false_kidney_ml"] == perfect["false_side_ml"] == 0
    prob[2:6, 4:10, 2:8, 1] = 1  # all of the healthy kidney, and as much again beside it
    scores = experiments.score_case(prob, label, 0.5)
    assert scores["false_kidney_ml"] == 4 * 6 * 4 / 2
    assert scores["false_side_ml"] == 4 * 6 * 6 / 2
    assert scores["sensitivity"] == 1
    assert scores["precision"] == pytest.approx(12 / (12 + 144))


def test_two_sick_kidneys_leave_no_healthy_side(experiments, label):
    label[3, 5, 3] = 2
    assert experiments.healthy_sides(label) == []


def test_losses_agree_with_their_formulas(experiments):
    rng = np.random.default_rng(0)
    u = rng.random((2, 3, 4, 5, 2)).astype(np.float32)
    v = (rng.random(u.shape) < 0.3).astype(np.float32)
    v[..., 1] *= v[..., 0]

    def dice(v, u):
        return -2 * (u * v).sum() / (u.sum() + v.sum())

    expected = dice(v[..., 0], u[..., 0]) + dice(v[..., 1], u[..., 1])
    kidney = dice(v[..., 0] - v[..., 1], u[..., 0] * (1 - u[..., 1]))
    entropy = -(v * np.log(u) + (1 - v) * np.log(1 - u)).mean() * 2
    for name, value in (
        ("dice", expected),
        ("kidney", expected + kidney),
        ("cross-entropy", expected + 0.1 * entropy),
    ):
        loss = experiments.LOSSES[name]("batch", 1e-5)
        assert float(loss.call(v, u)) == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(("variant", "loss"), [("unet2d", "kidney"), ("lnet", "dice")])
def test_an_experiment_leaves_its_line(experiments, variant, loss, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "TUNING_CASES", 2)
    monkeypatch.setattr(experiments, "WATCHED_CASES", 1)
    config = SMALL | {"batch_size": 2, "batch_size_2d": 16}
    spec = experiments.Experiment("x", "a test", variant, config, loss, cases=3, training_scored=1)
    experiments.run(spec, tmp_path, tmp_path)
    experiments.run(spec, tmp_path, tmp_path)  # takes what is trained
    name = "experiments_lnet.csv" if variant == "lnet" else "experiments.csv"
    with (tmp_path / name).open() as stream:
        rows = list(experiments.csv.DictReader(stream))
    assert len(rows) == (2 * 7 * 5 if variant == "lnet" else 2)
    assert {row["name"] for row in rows} == {"x"}
    steps = 2 * {"unet2d": math.ceil(2 * 2 * 12 / 16), "lnet": 1}[variant]
    assert int(rows[0]["steps"]) == steps
    if variant == "lnet":
        assert all(0 <= float(row["tumor_kept"]) <= 1 for row in rows)
    else:
        same = [{k: v for k, v in row.items() if k != "cpu_minutes"} for row in rows]
        assert same[0] == same[1]
        assert 0 <= float(rows[0]["whole"]) <= 1
