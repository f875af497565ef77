import csv
import dataclasses
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import random_model

from tunet_lib.config import VARIANTS

BOOK = Path(__file__).parents[1] / "book"
PATH = BOOK / "experiments.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the book is not there")
SMALL = {"filters": 2, "norm_groups": 2, "levels": 2, "epochs": 2, "precision": "float32"}


def load(name):
    spec = importlib.util.spec_from_file_location(name, BOOK / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def experiments():
    return load("experiments")


@pytest.fixture(scope="module")
def ablations(experiments):
    return load("ablations")


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
    assert experiments.finished(tmp_path / f"experiments{'_lnet' * (variant == 'lnet')}.csv") == {
        "x"
    }
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
        assert rows[0] == rows[1]  # the processor's time is that of its training
        assert float(rows[0]["cpu_minutes"]) >= 0
        assert 0 <= float(rows[0]["whole"]) <= 1


def test_gradients_can_be_summed_up_and_weights_averaged(experiments, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "WATCHED_CASES", 1)
    config = SMALL | {"batch_size": 1, "epochs": 1}
    small = experiments.Experiment("x", "a test", "lnet", config, cases=3)
    cases = experiments.Cases(tmp_path, small.full_config).load("train", 3, 1)

    def trained(name, **adam):
        experiment = dataclasses.replace(small, adam=adam)
        memory = list(map(experiments.InMemory, cases))
        training, _ = experiments.train(experiment, memory, tmp_path / name)
        assert int(training.network.optimizer._iterations) == 2
        return np.concatenate([array.ravel() for array in training.network.get_weights()])

    moved = trained("plain")
    held = trained("held", gradient_accumulation_steps=3)  # the third never comes
    average = trained("average", use_ema=True, ema_momentum=1.0)  # stays with the first step
    assert 0 < np.abs(average - held).mean() < np.abs(moved - held).mean()


def test_an_ablation_differs_from_its_base_in_one_thing(experiments, ablations):
    trainings = ablations.trainings(list(ablations.ABLATIONS), ablations.SEEDS)
    names = [experiment.name for experiment in trainings]
    assert len(names) == len(set(names)) == len(ablations.ABLATIONS) * len(ablations.SEEDS)
    # One seed after the other, so that what is there at any time can be compared.
    assert [e.seed for e in trainings] == sorted(e.seed for e in trainings)
    together = {
        "rotation_deg zoom mirror gain shift",
        "foreground_fraction tumor_fraction",
        "patch_shape patch_stride patches_per_case batch_size",
    }
    for name, (_, variant, config, loss) in ablations.ABLATIONS.items():
        base = ablations.ABLATIONS[name.partition("_")[0]]
        mine = experiments.Experiment(name, "", variant, config, loss).full_config
        theirs = experiments.Experiment(name, "", base[1], base[2], base[3]).full_config
        changed = set(mine.differences(theirs))
        assert variant == base[1]
        assert name == name.partition("_")[0] or bool(changed) != (loss != base[3])
        assert len(changed) <= 1 or any(changed <= set(names.split()) for names in together)


def test_the_tumor_counts_and_t_net_learns_from_half_way_on(experiments):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(2, 8, 8, 8, 1)).astype(np.float32)
    truth = (rng.random((2, 8, 8, 8, 2)) < 0.3).astype(np.float32)
    u = rng.random(truth.shape).astype(np.float32)
    loss = experiments.LOSSES["whole first"]("batch", 1e-5)
    both = experiments.DiceLoss("batch", 1e-5).call
    plain = experiments.keras.ops.convert_to_numpy
    network = random_model("tunet").network
    network.compile(experiments.keras.optimizers.Adam(0.01), loss, jit_compile=False)
    network.optimizer.build(network.trainable_variables)
    w_net, t_net = network.get_layer("w_net"), network.get_layer("t_net")
    for share_done, channels in ((0.0, 1), (0.49, 1), (0.5, 2)):
        loss.begin(network, share_done)
        expected = plain(both(truth[..., :channels], u[..., :channels]))
        assert float(loss.call(truth, u)) == pytest.approx(float(expected), rel=1e-5)
        before = [[np.array(w) for w in part.get_weights()] for part in (w_net, t_net)]
        network.train_on_batch(image, truth)
        moved = [
            any((a != b).any() for a, b in zip(part.get_weights(), old, strict=True))
            for part, old in zip((w_net, t_net), before, strict=True)
        ]
        assert moved == [True, channels == 2]


@pytest.mark.parametrize("name", ["unet2d", "unet3d"])
def test_heads_speak_on_each_lower_level_and_leave_the_network_alone(experiments, name):
    config = experiments.Config.preset("course", **(SMALL | {"levels": 4, "first_prob": 0.1}))
    network = experiments.Model.untrained(VARIANTS[name], config).network
    heads = experiments.with_heads(network, config.first_prob)
    image = np.random.default_rng(2).normal(size=(1, *(16,) * (3 if name == "unet3d" else 2), 1))
    image = image.astype(np.float32)
    alone, all_levels = np.asarray(network(image)), np.asarray(heads(image))
    assert all_levels.shape == (*alone.shape[:-1], 6)  # levels 1, 1/2 and 1/4 of the size
    assert np.array_equal(all_levels[..., :2], alone)
    for level in (1, 2):
        coarse = all_levels[..., 2 * level : 2 * level + 2]
        side = 2**level
        first = coarse[(slice(None), *[slice(0, side)] * (coarse.ndim - 2))]
        assert np.ptp(first.reshape(-1, 2), axis=0) == pytest.approx(0)
        assert np.ptp(coarse) > 0
        assert 0.02 < coarse.mean() < 0.4  # begins near the first probability
    more = len(heads.trainable_variables) - len(network.trainable_variables)
    assert more == 2 * 2  # a kernel and a bias each

    truth = (alone > np.median(alone)).astype(np.float32)
    dice = experiments.DiceLoss("batch", 1e-5)
    expected = sum(
        0.5**k * float(dice.call(truth, all_levels[..., 2 * k : 2 * k + 2])) for k in range(3)
    )
    loss = experiments.LOSSES["each level"]("batch", 1e-5)
    assert float(loss.call(truth, all_levels)) == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def few(experiments, ablations, monkeypatch):
    """Ablations that take seconds, on five phantoms."""
    monkeypatch.setattr(experiments, "TUNING_CASES", 2)
    monkeypatch.setattr(experiments, "WATCHED_CASES", 1)
    experiment = experiments.Experiment
    monkeypatch.setattr(
        ablations, "Experiment", lambda *args, **kwargs: experiment(*args, **kwargs, cases=3)
    )
    config = SMALL | {"batch_size_2d": 16, "levels": 3, "epochs": 1}
    monkeypatch.setattr(
        ablations,
        "ABLATIONS",
        {
            "2d": ("the recipe", "unet2d", config, "dice"),
            "2d_deep": ("heads", "unet2d", config, "each level"),
        },
    )
    return ablations


def read(path):
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_ablations_leave_their_lines_and_run_once(few, tmp_path, monkeypatch):
    command = ["ablations", "--data", str(tmp_path / "data"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "2019"])
    few.main()
    rows, cases = read(tmp_path / "ablations.csv"), read(tmp_path / "ablation_cases.csv")
    assert [(row["ablation"], row["seed"]) for row in rows] == [("2d", "2019"), ("2d_deep", "2019")]
    assert [row["ablation"] for row in cases] == ["2d", "2d", "2d_deep", "2d_deep"]
    for row in rows:
        of_row = [case for case in cases if case["ablation"] == row["ablation"]]
        for region in ("whole", "tumor"):
            mean = np.mean([float(case[region]) for case in of_row])
            assert float(row[region]) == pytest.approx(mean, abs=1e-4)

    ran = []
    monkeypatch.setattr(few, "run", lambda experiment, *_: ran.append(experiment.name))
    few.main()
    assert ran == []
    monkeypatch.setattr(sys, "argv", [*command, "2d", "--seeds", "2019", "2020"])
    few.main()
    assert ran == ["2d_2020"]


def test_the_stored_ablations_agree_with_their_cases(ablations):
    trained, cases = (
        read(BOOK / "results" / f"{name}.csv") for name in ("ablations", "ablation_cases")
    )
    names = [(row["ablation"], row["seed"]) for row in trained]
    assert len(names) == len(set(names))
    assert {ablation for ablation, _ in names} <= set(ablations.ABLATIONS)
    for row in trained:
        mine = [c for c in cases if (c["ablation"], c["seed"]) == (row["ablation"], row["seed"])]
        assert len({case["case_id"] for case in mine}) == len(mine) == 32
        for region in ("whole", "tumor", "sensitivity", "precision"):
            mean = np.mean([float(case[region]) for case in mine])
            assert float(row[region]) == pytest.approx(mean, abs=2e-5)
