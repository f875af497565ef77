"""What lies in the folder of one network, and how it is read back."""

import warnings

import pytest
from tiny import tiny_config

from tunet_lib import model_folder
from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError, DataWarning, load_json, save_json
from tunet_lib.history import write_history
from tunet_lib.model_folder import ModelFolder


@pytest.fixture
def folder(tmp_path):
    return ModelFolder(tmp_path / "models" / "tunet")


def test_the_names_of_the_files(folder):
    assert folder.weights == folder.path / "model.weights.h5"
    assert folder.history_path == folder.path / "history.csv"
    assert folder.checkpoint == folder.path / "checkpoint.npz"
    assert folder.log == folder.path / "training.log"


def test_its_weights_make_it_complete(folder):
    assert not folder.is_trained
    folder.describe(VARIANTS["tunet"], tiny_config())
    assert not folder.is_trained
    folder.weights.touch()
    assert folder.is_trained


def test_variant_and_configuration_come_back(folder):
    config = tiny_config(seed=7)
    folder.describe(VARIANTS["tunet_seb"], config)
    assert folder.variant() == VARIANTS["tunet_seb"]
    assert folder.config() == config
    assert load_json(folder.path / "variant.json") == "tunet_seb"


@pytest.mark.parametrize("value", ["vnet", 3, ["tunet"], {"tunet": 1}, None])
def test_unknown_variant(folder, value):
    save_json(folder.path / "variant.json", value)
    with pytest.raises(DataError, match=r"variant\.json: names no known variant"):
        folder.variant()


@pytest.mark.parametrize(("name", "read"), [("variant", "variant"), ("config", "config")])
def test_a_missing_description_is_named(folder, name, read):
    with pytest.raises(DataError, match=rf"{name}\.json"):
        getattr(folder, read)()


def test_another_configuration_expected(folder):
    folder.check_config(tiny_config())  # nothing is there, so nothing is wrong
    folder.describe(VARIANTS["tunet"], tiny_config())
    folder.check_config(tiny_config())
    with pytest.raises(DataError, match=r"another configuration \(levels, filters differ\)"):
        folder.check_config(tiny_config(levels=3, filters=4))
    with pytest.raises(DataError, match=r"another configuration \(learning_rate, seed differ\)"):
        folder.check_config(tiny_config(learning_rate=1.0, seed=1))


def test_another_network_expected(folder):
    folder.check_config(tiny_config(), VARIANTS["lnet"])  # nothing is there
    folder.describe(VARIANTS["tunet"], tiny_config())
    folder.check_config(tiny_config(), VARIANTS["tunet"])
    with pytest.raises(DataError, match="holds a training of tunet"):
        folder.check_config(tiny_config(), VARIANTS["tunet_median"])


def test_epochs_are_counted_from_the_log(folder):
    assert folder.history() == []
    log = {
        "epoch": 1,
        "loss": -0.1,
        "val_loss": -0.2,
        "learning_rate": 0.1,
        "attempts": 1,
        "time_s": 1.5,
    }
    write_history(folder.history_path, [log, {**log, "epoch": 2}])
    assert folder.history() == [log, {**log, "epoch": 2}]


def test_a_damaged_log_is_an_error(folder):
    folder.path.mkdir(parents=True)
    folder.history_path.write_text("epoch,loss\n1,0\n")
    with pytest.raises(DataError, match=r"history\.csv"):
        folder.history()


def test_the_cases_that_it_saw_stay_the_same(folder):
    folder.note_cases(["case_00000", "case_00001"])
    folder.note_cases(["case_00000", "case_00001"])
    assert folder.seen() == ["case_00000", "case_00001"]
    with pytest.raises(DataError, match="trained on other cases"):
        folder.note_cases(["case_00000"])
    assert folder.seen() == ["case_00000", "case_00001"]


def state_of(commit):
    return {"commit": commit, "dirty": False}


@pytest.mark.parametrize("value", [{}, [3], [{"git": "abc"}], [{}], [{"git": {"commit": 1}}], None])
def test_damaged_notes_of_the_code(folder, value):
    save_json(folder.path / "trained_with.json", value)
    with pytest.raises(DataError, match=r"trained_with\.json: is no list of versions"):
        folder.trained_with()


@pytest.mark.parametrize("value", [[], {}, "case_00000", [1], [["case_00000"]], None, {"a": 1}])
def test_a_network_that_names_no_cases_may_have_seen_all(folder, value):
    save_json(folder.path / "training_cases.json", value)
    with pytest.raises(DataError, match=r"training_cases\.json: names no cases"):
        folder.seen()


def test_each_state_of_the_code_is_noted_once_and_none_after_the_end(folder, monkeypatch):
    assert folder.trained_with() == []
    monkeypatch.setattr(model_folder, "versions", lambda: {"numpy": "2"})
    for commit in ("a", "a", "b", "a"):
        monkeypatch.setattr(model_folder, "git_state", lambda commit=commit: state_of(commit))
        folder.note_code()
    made = [(state["git"], state["versions"]) for state in folder.trained_with()]
    assert made == [(state_of(commit), {"numpy": "2"}) for commit in "ab"]
    folder.weights.touch()
    monkeypatch.setattr(model_folder, "git_state", lambda: None)
    folder.note_code()
    assert len(folder.trained_with()) == 2


def test_another_number_of_threads_is_noted_and_warned_of(folder, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    folder.note_code()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder.note_code()
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    with pytest.warns(DataWarning, match="was trained with 3 threads and goes on with 2"):
        folder.note_code()
    assert [state["threads"] for state in folder.trained_with()] == [3, 2]


def test_the_same_cases_in_another_order_are_no_others(folder):
    folder.note_cases(["case_00001", "case_00000"], ["case_00002"])
    with pytest.raises(DataError, match="began with the same cases in another order"):
        folder.note_cases(["case_00000", "case_00001"], ["case_00002"])
    with pytest.raises(DataError, match=r"trained on other cases \(see watched_cases\.json\)"):
        folder.note_cases(["case_00001", "case_00000"], ["case_00003"])
    folder.weights.touch()  # now the order decides nothing any more
    folder.note_cases(["case_00000", "case_00001"], ["case_00002"])


def test_of_finished_weights_nobody_notes_what_they_saw(folder):
    folder.path.mkdir(parents=True)
    folder.weights.touch()
    folder.note_cases(["case_00000"], ["case_00001"])
    with pytest.raises(DataError, match="training_cases"):
        folder.seen()
