import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import TinyCase, tiny_config, write_cases

from tunet_lib.config import VARIANTS, Config
from tunet_lib.files import DataError
from tunet_lib.folds import Split
from tunet_lib.history import read_history
from tunet_lib.losses import DiceLoss
from tunet_lib.model import Model
from tunet_lib.quiet import keras
from tunet_lib.training import Schedule, Training, compiled, train

TUNET = VARIANTS["tunet"]
PAPER = Config.preset("paper")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("prepared"), 4)


def split_of(cases, fold=0):
    return Split(fold, cases[1:], cases[:1])


@pytest.fixture(scope="module")
def split(cases):
    return split_of(cases)


def run_schedule(losses, config=PAPER):
    schedule = Schedule(config.learning_rate)
    rates = []
    for loss in losses:
        if schedule.finished(config):
            break
        rates.append(schedule.learning_rate)
        schedule.add({"val_loss": loss}, config)
    return schedule, rates


def test_learning_rate_drops_after_exactly_6_epochs_without_improvement():
    # Epoch 1 is the best; 2 to 7 do not improve on it, so 8 is the first at a fifth.
    _, rates = run_schedule([-1.0] + [-0.5] * 13)
    np.testing.assert_allclose(rates, [1e-4] * 7 + [2e-5] * 6 + [4e-6])


def test_five_epochs_without_improvement_change_nothing():
    _, rates = run_schedule([-1.0] + [-0.5] * 5 + [-1.1] + [-0.5] * 6 + [0])
    np.testing.assert_allclose(rates, [1e-4] * 13 + [2e-5])


def test_training_stops_after_exactly_15_epochs_without_improvement():
    schedule, _ = run_schedule([-1.0, -1.1] + [-0.5] * 100)
    assert schedule.epoch == 2 + 15
    assert (schedule.best_epoch, schedule.best_loss) == (2, -1.1)


def test_a_late_improvement_keeps_training_going():
    schedule, _ = run_schedule([-1.0] + [-0.5] * 14 + [-1.1] + [-0.5] * 100)
    assert schedule.epoch == 16 + 15


def test_training_stops_at_200_epochs():
    schedule, _ = run_schedule(-np.arange(300.0))
    assert schedule.epoch == schedule.best_epoch == 200


def test_cosine_decay_ends_at_zero_whatever_the_losses_are():
    config = Config.preset("paper", decay="cosine", epochs=4, learning_rate=0.1, stop_patience=9)
    schedule, rates = Schedule(config.learning_rate), []
    while not schedule.finished(config):
        rates.append(schedule.learning_rate)
        schedule.add({"val_loss": -1.0}, config)
    half = 0.1 * (1 + 0.5**0.5) / 2
    np.testing.assert_allclose(rates, [0.1, half, 0.05, 0.1 - half])
    assert schedule.learning_rate == pytest.approx(0, abs=1e-12)


def test_the_same_loss_is_no_improvement():
    schedule, _ = run_schedule([-1.0] * 100)
    assert (schedule.epoch, schedule.best_epoch) == (16, 1)


def test_a_loss_that_is_no_number_is_no_improvement():
    schedule, _ = run_schedule([-1.0] + [float("nan")] * 100)
    assert (schedule.epoch, schedule.best_epoch) == (16, 1)


def test_adam_as_in_the_paper():
    model = compiled(TUNET, tiny_config(learning_rate=1e-4))
    assert type(model.optimizer) is keras.optimizers.Adam
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)
    assert (model.optimizer.beta_1, model.optimizer.beta_2) == (0.9, 0.999)
    assert isinstance(model.loss, DiceLoss)


def weights_in(folder):
    return Model.load(folder).network.get_weights()


def assert_same_weights(one, other):
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def without_time(history):
    return [{k: v for k, v in log.items() if k != "time_s"} for log in history]


THREE = tiny_config(epochs=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cases):
    """Give for a network its folder, its history, and the folder as it was after each epoch."""

    @functools.cache
    def trained(name):
        parent = tmp_path_factory.mktemp(name)
        seen = []

        def keep(log):
            seen.append(log)
            shutil.copytree(parent / "whole", parent / f"epoch_{log['epoch']}")

        history = train(
            VARIANTS[name], THREE, split_of(cases, 2), folder=parent / "whole", on_epoch=keep
        )
        assert seen == history
        return parent, history

    return trained


@pytest.mark.parametrize("name", ["unet2d", "lnet"])
def test_training_lowers_the_loss_and_leaves_what_prediction_needs(trained, name):
    parent, history = trained(name)
    assert history == read_history(parent / "whole" / "history.csv")
    assert [log["epoch"] for log in history] == [1, 2, 3]
    assert {log["learning_rate"] for log in history} == {THREE.learning_rate}
    assert history[-1]["loss"] < history[0]["loss"]
    assert sorted(path.name for path in (parent / "whole").iterdir()) == [
        "config.json",
        "history.csv",
        "model.weights.h5",
        "training_cases.json",
        "variant.json",
        "watched_cases.json",
    ]
    model = Model.load(parent / "whole")
    assert model.config == THREE
    assert model.variant == VARIANTS[name]
    assert model.network.name == {"unet2d": "unet_2d", "lnet": "l_net"}[name]


def test_the_best_weights_are_kept_and_the_step_is_compiled_once(tmp_path, split, monkeypatch):
    models, losses, traces, after = [], [-0.1, -0.5, -0.3, -0.4], [], []
    evaluate, call = keras.Model.evaluate, DiceLoss.call

    def with_given_loss(model, *args, **kwargs):
        evaluate(model, *args, **kwargs)
        models.append([np.array(value) for value in model.get_weights()])
        after.append(len(traces))
        return {"loss": losses[len(models) - 1]}

    def counted(self, *args):
        traces.append(1)
        return call(self, *args)

    monkeypatch.setattr(keras.Model, "evaluate", with_given_loss)
    monkeypatch.setattr(DiceLoss, "call", counted)
    history = train(
        VARIANTS["unet3d"], tiny_config(levels=1, epochs=4), split, folder=tmp_path, workers=2
    )
    assert [log["val_loss"] for log in history] == losses
    assert_same_weights(weights_in(tmp_path), models[1])
    assert (models[1][0] != models[3][0]).any()
    # Each epoch brings a new dataset; none brings a new compilation.
    assert after[0] > 0
    assert set(after) == {after[0]}


def test_a_finished_training_is_left_alone(split, trained):
    parent, history = trained("unet2d")
    before = {path: path.stat().st_mtime_ns for path in (parent / "whole").iterdir()}
    assert train(VARIANTS["unet2d"], THREE, split, folder=parent / "whole") == history
    after = {path: path.stat().st_mtime_ns for path in (parent / "whole").iterdir()}
    assert before == after


def test_a_training_with_another_configuration_is_left_alone(tmp_path, split):
    config = tiny_config()
    config.save(tmp_path / "config.json")
    other = replace(config, learning_rate=0.5, seed=1)
    with pytest.raises(DataError, match=r"another configuration \(learning_rate, seed differ\)"):
        train(TUNET, other, split, folder=tmp_path)
    assert Config.load(tmp_path / "config.json") == config


@pytest.mark.parametrize("sampling", ["windows", "random"])
def test_a_missing_label(tmp_path, cases, sampling):
    class Unlabeled(TinyCase):
        def label(self):
            raise DataError(f"{self.folder}: has no label map")

    bad = Unlabeled(cases[1].case_id, cases[1].folder)
    config = tiny_config(patch_sampling=sampling, foreground_fraction=0.0, tumor_fraction=0.0)
    splits = Split(0, [*cases[2:], bad], cases[:1]), Split(0, cases[2:], [bad])
    for number, given in enumerate(splits):
        folder = tmp_path / str(number)
        with pytest.raises(DataError, match="case_00001: has no label map"):
            train(VARIANTS["unet2d"], config, given, folder=folder)
        assert not (folder / "model.weights.h5").exists()


def test_a_training_goes_on_with_its_own_cases_only(tmp_path, cases, split):
    config = tiny_config(epochs=1)
    train(VARIANTS["unet2d"], config, split, folder=tmp_path)
    other = Split(1, cases[:-1], cases[-1:])
    assert other.training != split.training
    with pytest.raises(DataError, match="was trained on other cases"):
        train(VARIANTS["unet2d"], config, other, folder=tmp_path)


def test_a_label_file_that_is_gone(tmp_path):
    cases = write_cases(tmp_path / "prepared", 2)
    (cases[0].folder / "label.npy").unlink()
    with pytest.raises(DataError, match=r"case_00000.label\.npy"):
        train(
            VARIANTS["unet2d"],
            tiny_config(),
            Split(0, cases[:1], cases[1:]),
            folder=tmp_path / "run",
        )


def test_no_cases(tmp_path, cases):
    with pytest.raises(DataError, match="0 cases to train on, 4 to watch"):
        train(TUNET, tiny_config(), Split(0, [], cases), folder=tmp_path)
    with pytest.raises(DataError, match="4 cases to train on, 0 to watch"):
        train(TUNET, tiny_config(), Split(0, cases, []), folder=tmp_path)


def test_a_damaged_checkpoint(tmp_path, split, trained):
    content = (trained("unet2d")[0] / "epoch_1" / "checkpoint.npz").read_bytes()
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(content)
    arrays = dict(np.load(path))
    middle = len(content) // 2
    training = Training(VARIANTS["unet2d"], THREE, split)
    for damaged in (
        b"",
        b"no checkpoint",
        content[:middle],
        content[:middle] + bytes(2000) + content[middle + 2000 :],
        {name: array for name, array in arrays.items() if name != "best_0"},
        {**arrays, "schedule": np.array("{}")},
        {**arrays, "optimizer_2": np.zeros(1)},
    ):
        if isinstance(damaged, dict):
            np.savez(path, **damaged)
        else:
            path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ResourceWarning)
            with pytest.raises(DataError, match=r"checkpoint\.npz: is no checkpoint"):
                training.restore(path)
            gc.collect()
        # A file that is left open.
        assert [one.message for one in said if one.category is ResourceWarning] == []
    path.write_bytes(content)
    training.restore(path)
    assert training.schedule.epoch == 1
    assert len(training.best) == len(training.network.weights)
    assert_same_weights(training.best, [arrays[f"best_{i}"] for i in range(len(training.best))])


def test_no_checkpoint_is_a_training_that_begins(tmp_path, split):
    training = Training(VARIANTS["unet2d"], THREE, split)
    before = training.network.get_weights()
    training.restore(tmp_path / "checkpoint.npz")
    assert training.schedule.epoch == 0
    assert_same_weights(training.network.get_weights(), before)


def test_training_with_a_damaged_checkpoint_changes_nothing(tmp_path, split, trained):
    folder = shutil.copytree(trained("unet2d")[0] / "epoch_1", tmp_path / "run")
    (folder / "checkpoint.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="remove it to start anew"):
        train(VARIANTS["unet2d"], THREE, split, folder=folder)
    assert len(read_history(folder / "history.csv")) == 1
    assert not (folder / "model.weights.h5").exists()


def test_bfloat16_needs_no_loss_scale(tmp_path, split):
    config = tiny_config(precision="bfloat16", levels=1, epochs=3)
    optimizer = compiled(TUNET, config).optimizer
    assert not isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    history = train(TUNET, config, split, folder=tmp_path / "bfloat16")
    assert history[-1]["loss"] < history[0]["loss"]
    assert Config.load(tmp_path / "bfloat16" / "config.json").precision == "bfloat16"


class StopHereError(Exception):
    pass


def stop(log):
    raise StopHereError


def test_mixed_precision_trains_and_resumes(tmp_path, split):
    variant = VARIANTS["unet3d"]
    config = tiny_config(precision="float16", levels=1, epochs=2, patches_per_case=2)
    optimizer = compiled(variant, config).optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    optimizer.learning_rate = 0.25  # as `Schedule` does
    assert float(optimizer.inner_optimizer.learning_rate) == 0.25
    straight = train(variant, config, split, folder=tmp_path / "straight")
    losses = np.array([[log["loss"], log["val_loss"]] for log in straight])
    assert np.isfinite(losses).all()
    assert len(np.unique(losses)) == losses.size  # steps were taken, none skipped for overflow
    with pytest.raises(StopHereError):
        train(variant, config, split, folder=tmp_path / "resumed", on_epoch=stop)
    assert not (tmp_path / "resumed" / "model.weights.h5").exists()
    resumed = train(variant, config, split, folder=tmp_path / "resumed")
    assert without_time(resumed) == without_time(straight)
    assert_same_weights(weights_in(tmp_path / "resumed"), weights_in(tmp_path / "straight"))


# Trains in a process of its own and, where asked to, kills itself at a certain point.
IN_ITS_OWN_PROCESS = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from test_training import KILLED, TUNET, split_of
from tiny import TinyCase
from tunet_lib import patches, training

folder, prepared, when = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
cases = [TinyCase(path.name, path) for path in sorted(prepared.iterdir())]
get, savez = patches.PatchDataset.__getitem__, np.savez
saved = []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def get_or_die(self, index):
    if when == "from outside":
        time.sleep(0.05)
    if when == "in mid-epoch" and self.augment and self.seed[3] == 3 and index == 3:
        die()
    return get(self, index)

def save_or_die(stream, **arrays):
    saved.append(1)
    if when == "while it saves" and len(saved) == 2:
        stream.write(b"half a checkpoint")
        stream.flush()
        die()
    savez(stream, **arrays)

patches.PatchDataset.__getitem__ = get_or_die
np.savez = save_or_die
training.train(TUNET, KILLED, split_of(cases, 1), folder=folder, workers=2)
"""
# The learning rate drops after each epoch without improvement, so all state matters, and
# the validation case has the labels of another: it does not improve for long.
KILLED = tiny_config(levels=1, epochs=7, plateau_patience=1, learning_rate=0.05)


def start(folder, prepared, when):
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", IN_ITS_OWN_PROCESS, folder, prepared, when],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
    )


def epochs_in(folder):
    path = folder / "history.csv"
    return len(read_history(path)) if path.exists() else 0


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path):
    prepared, killed = tmp_path / "prepared", tmp_path / "killed"
    cases = write_cases(prepared, 4)
    shutil.copy(cases[3].folder / "label.npy", cases[0].folder)

    process = start(killed, prepared, "from outside")
    try:
        while epochs_in(killed) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    finally:
        process.kill()
    done = epochs_in(killed)
    assert 2 <= done < 4

    assert start(killed, prepared, "in mid-epoch").wait(300) == -signal.SIGKILL
    assert epochs_in(killed) == 3
    assert start(killed, prepared, "while it saves").wait(300) == -signal.SIGKILL
    assert epochs_in(killed) == 4
    assert not (killed / "model.weights.h5").exists()
    assert list(killed.glob(".tmp-*"))

    # The last start, and the training that nothing disturbs, are in this process, and with
    # one worker instead of two.
    resumed = train(TUNET, KILLED, split_of(cases, 1), folder=killed)
    straight = train(TUNET, KILLED, split_of(cases, 1), folder=tmp_path / "straight")
    assert_same_weights(weights_in(killed), weights_in(tmp_path / "straight"))
    assert without_time(resumed) == without_time(straight)
    assert len(straight) == 7
    assert len({log["learning_rate"] for log in straight}) > 1
    left = [sorted(path.name for path in f.iterdir()) for f in (killed, tmp_path / "straight")]
    assert left[0] == left[1]


@pytest.mark.parametrize("where", ["loss", "validation", "weight", "optimizer"])
def test_an_epoch_whose_numbers_are_not_finite_begins_anew(where, split, monkeypatch):
    # The optimizer's is the silent one: the losses and the weights are in order.
    config = tiny_config(epochs=2)
    straight = Training(VARIANTS["unet2d"], config, split)
    disturbed = Training(VARIANTS["unet2d"], config, split)
    log = straight.run_epoch()
    calls, starts = [], []

    def overflowing(network, batches, **options):
        starts.append(disturbed.state())
        fitted = keras.Model.fit(network, batches, **options)
        calls.append(float(network.optimizer.learning_rate))
        if len(calls) == 1:
            values = network.weights if where == "weight" else network.optimizer.variables
            if where == "loss":
                fitted.history["loss"][0] = float("nan")
            elif where != "validation":
                values[-1].assign(np.full(values[-1].shape, np.inf, np.float32))
        return fitted

    def evaluate(network, *args, **options):
        losses = keras.Model.evaluate(network, *args, **options)
        return {"loss": float("inf")} if where == "validation" and len(calls) == 1 else losses

    monkeypatch.setattr(disturbed, "network", Disturbed(disturbed.network, overflowing, evaluate))
    again = disturbed.run_epoch()
    assert (log["attempts"], again["attempts"]) == (1, 2)
    assert calls == [pytest.approx(config.learning_rate)] * 2
    # All of it comes back, for what is finite has been trained on as well.
    first, second = starts
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(second[name], first[name], err_msg=name)
    assert np.isfinite(again["val_loss"])
    assert all(np.isfinite(array).all() for array in disturbed.state().values())
    assert again["loss"] != log["loss"]  # with other batches


class Disturbed:
    """A network with other `fit` and `evaluate`."""

    def __init__(self, network, fit, evaluate):
        self.network, self.own = network, {"fit": fit, "evaluate": evaluate}

    def __getattr__(self, name):
        if name in self.own:
            return functools.partial(self.own[name], self.network)
        return getattr(self.network, name)


def test_a_training_that_never_is_finite_is_given_up(split, tmp_path, monkeypatch):
    nan = float("nan")
    monkeypatch.setattr(
        keras.Model, "fit", lambda *_, **__: SimpleNamespace(history={"loss": [nan]})
    )
    monkeypatch.setattr(keras.Model, "evaluate", lambda *_, **__: {"loss": nan})
    with pytest.raises(DataError, match="epoch 1 of L-Net: 3 times numbers grew"):
        train(VARIANTS["lnet"], tiny_config(), split, folder=tmp_path)
    assert not (tmp_path / "model.weights.h5").exists()


def test_the_learning_rate_rises_in_equal_steps_and_then_falls():
    config = Config.preset("paper", warmup_epochs=3, decay="cosine", epochs=7, stop_patience=9)
    schedule, rates = Schedule(config.learning_rate), []
    while not schedule.finished(config):
        rates.append(schedule.rate(config) / config.learning_rate)
        schedule.add({"val_loss": -1.0}, config)
    cosine = (1 + np.cos(np.pi * np.arange(7) / 7)) / 2
    np.testing.assert_allclose(rates, cosine * [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1])


def test_no_plateau_is_counted_while_the_learning_rate_rises():
    config = Config.preset("paper", warmup_epochs=10)
    schedule, rates = Schedule(config.learning_rate), []
    while not schedule.finished(config):
        rates.append(schedule.rate(config) / config.learning_rate)
        schedule.add({"val_loss": -1.0}, config)
    np.testing.assert_allclose(rates[:11], np.arange(1, 12) / 11)
    assert rates[15] == pytest.approx(1)


def test_a_rate_that_is_written_as_a_whole_number_is_taken():
    assert float(compiled(TUNET, tiny_config(learning_rate=1)).optimizer.learning_rate) == 1
