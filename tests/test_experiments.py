import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from tunet_lib.config import VARIANTS
from tunet_lib.patches import PatchSource

PATH = Path(__file__).parents[1] / "book" / "experiments.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the book is not there")


@pytest.fixture(scope="module")
def experiments():
    spec = importlib.util.spec_from_file_location("experiments", PATH)
    module = sys.modules["experiments"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def case(experiments):
    label = np.zeros((8, 16, 16), np.uint8)
    label[2:6, 4:10, 2:6] = 1
    label[2:6, 4:10, 10:14] = 1
    label[3:5, 5:8, 10:12] = 2
    volume = np.random.default_rng(0).standard_normal(label.shape).astype(np.float32)
    return experiments.Case("case_00000", volume + label, volume, label, voxel_ml=0.5)


def test_names_are_unique_and_every_configuration_is_valid(experiments):
    names = [e.name for e in experiments.EXPERIMENTS]
    assert len(names) == len(set(names))
    for experiment in experiments.EXPERIMENTS:
        assert experiment.full_config.levels == 4
        assert experiment.start in {"", *names}


def test_false_tumor_is_counted_on_the_side_without_one(experiments, case):
    prob = np.zeros((*case.truth.shape, 2), np.float32)
    prob[..., 0] = case.truth > 0
    prob[..., 1] = case.truth == 2
    perfect = experiments.score_case(prob, case)
    assert perfect["whole"] == perfect["tumor"] == perfect["precision"] == 1
    assert perfect["tumor_ml"] == 6
    assert perfect["false_kidney_ml"] == perfect["false_side_ml"] == 0
    prob[2:6, 4:10, 2:8, 1] = 1  # all of the healthy kidney, and as much again beside it
    scores = experiments.score_case(prob, case)
    assert scores["false_kidney_ml"] == 4 * 6 * 4 / 2
    assert scores["false_side_ml"] == 4 * 6 * 6 / 2
    assert scores["sensitivity"] == 1
    assert scores["precision"] == pytest.approx(12 / (12 + 144))


def test_two_sick_kidneys_leave_no_healthy_side(experiments, case):
    case.truth[3, 5, 3] = 2
    assert experiments.healthy_sides(case.truth) == []


def test_a_patch_that_is_not_changed_is_the_patch(experiments, case):
    config = dataclasses.replace(
        experiments.Experiment("x", "").full_config,
        grid_shape=case.truth.shape,
        lnet_shape=case.truth.shape,
        patch_shape=case.truth.shape,
        patch_stride=case.truth.shape,
    )
    source = PatchSource(case, VARIANTS["unet3d"], config)
    only_flips = experiments.Augmentation(rotation_deg=0, flip=True)
    seen = set()
    for seed in range(8):
        image, target = experiments.draw_patch(source, only_flips, np.random.default_rng(seed))
        mirrored = np.allclose(image[..., ::-1, 0], case.volume(False), atol=1e-4)
        assert mirrored or np.allclose(image[..., 0], case.volume(False), atol=1e-4)
        truth = case.truth[..., ::-1] if mirrored else case.truth
        assert (target[..., 1] == (truth == 2)).all()
        seen.add(mirrored)
    assert seen == {True, False}


def test_a_killed_training_goes_on_as_if_nothing_had_been(experiments, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    cases = []
    for k in range(3):
        label = np.zeros((48, 80, 80), np.uint8)
        label[20:30, 30:50, 30:40] = 1
        label[22:26, 34:40, 32:36] = 2
        volume = rng.standard_normal(label.shape).astype(np.float32) + label
        cases.append(experiments.Case(f"case_{k:05d}", volume, volume, label, 0.2))
    small = {"precision": "float32", "levels": 2, "filters": 2, "norm_groups": 2}
    spec = experiments.Experiment("x", "", variant="unet2d", steps=4, warmup=1, config=small)
    monkeypatch.setattr(experiments, "SAVE_EVERY", 2)
    whole = experiments.train(spec, cases, tmp_path / "a", None, None)
    experiments.train(spec, cases, tmp_path / "b", None, until=2)
    resumed = experiments.train(spec, cases, tmp_path / "b", None, None)
    assert whole.guard == resumed.guard == {"loss or gradient": 0, "weights": 0, "optimizer": 0}
    np.testing.assert_allclose(whole.losses, resumed.losses, rtol=1e-4)
    for a, b in zip(whole.average, resumed.average, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_an_infinite_state_of_the_optimizer_is_seen(experiments):
    spec = experiments.Experiment("x", "", variant="unet2d")
    trainer = experiments.Trainer(spec)
    trainer.check()
    assert not any(trainer.guard.values())
    trainer.optimizer.variables[-1].assign(
        np.full(trainer.optimizer.variables[-1].shape, np.inf, np.float32)
    )
    trainer.check()
    assert trainer.guard["optimizer"] == 1
