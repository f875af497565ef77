"""A run folder: started, and gone on with."""

import json
import shutil

import numpy as np
import pytest
from scans import SPACING_MM, box_scan, scan_config, write_scans

from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError
from tunet_lib.kits19 import save_case
from tunet_lib.runs import open_run, prepare_run


@pytest.fixture
def data(tmp_path):
    write_scans(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def run(data, tmp_path):
    return prepare_run(data, tmp_path / "run", scan_config())[0]


def test_every_case_is_prepared_and_in_one_fold(data, tmp_path):
    seen = []
    run, failures = prepare_run(data, tmp_path / "run", scan_config(), on_case=seen.append)
    assert failures == {}
    assert sorted(seen) == sorted(run.folds[0] + run.folds[1])
    assert [len(fold) for fold in run.folds] == [2, 2]
    assert len(set(seen)) == 4
    assert [case.case_id for case in run.cases()] == sorted(seen)
    assert open_run(tmp_path / "run") == run


def test_starting_again_prepares_nothing_new(run, data):
    before = {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")}
    again, failures = prepare_run(data, run.folder, run.config)
    assert (again, failures) == (run, {})
    assert {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")} == before


def test_bad_cases_are_reported_and_the_others_prepared(data, tmp_path):
    image = data / "case_00001" / "imaging.nii.gz"
    image.write_bytes(image.read_bytes()[:-100])
    (data / "case_00002" / "imaging.nii.gz").write_text("<html>not found</html>")
    save_case(data / "case_00008", *box_scan(8), spacing_mm=SPACING_MM)
    save_case(data / "case_00009", box_scan(9)[0], spacing_mm=SPACING_MM)
    run, failures = prepare_run(data, tmp_path / "run", scan_config())
    assert set(failures) == {"case_00001", "case_00002", "case_00009"}
    assert "cut short" in failures["case_00001"]
    assert "web page" in failures["case_00002"]
    assert "segmentation.nii.gz" in failures["case_00009"]
    assert sorted(run.folds[0] + run.folds[1]) == ["case_00000", "case_00003", "case_00008"]
    # What has no label is prepared, but no training may trip over it.
    assert "case_00009" not in [case.case_id for case in run.cases()]


def test_no_good_case_is_an_error_that_says_why(tmp_path):
    (tmp_path / "data" / "case_00000").mkdir(parents=True)
    (tmp_path / "data" / "case_00000" / "imaging.nii.gz").touch()
    with pytest.raises(DataError, match=r"case_00000.*is empty"):
        prepare_run(tmp_path / "data", tmp_path / "run", scan_config())


def test_another_configuration_needs_another_folder(run, data):
    with pytest.raises(DataError, match="epochs differ"):
        prepare_run(data, run.folder, scan_config(epochs=7))


def test_a_wrong_data_folder_leaves_the_run_folder_free(tmp_path, data):
    with pytest.raises(DataError, match="cannot be read"):
        prepare_run(tmp_path / "absent", tmp_path / "run", scan_config(epochs=7))
    prepare_run(data, tmp_path / "run", scan_config())


def test_cases_may_be_added_until_something_is_trained(run, data):
    save_case(data / "case_00004", *box_scan(4), spacing_mm=SPACING_MM)
    assert sum(map(len, prepare_run(data, run.folder, run.config)[0].folds)) == 5
    run.model_folder(("tunet", 0)).path.mkdir(parents=True)
    save_case(data / "case_00005", *box_scan(5), spacing_mm=SPACING_MM)
    with pytest.raises(DataError, match="trained on other cases"):
        prepare_run(data, run.folder, run.config)


def test_models_stay_with_their_data(run, data):
    run.model_folder(("tunet", 0)).path.mkdir(parents=True)
    other = data.parent / "other"
    shutil.copytree(data, other)
    save_case(
        other / "case_00000", *box_scan(9), spacing_mm=SPACING_MM
    )  # another patient, by the same name
    before = {path: path.read_bytes() for path in run.prepared.rglob("*.*")}
    with pytest.raises(DataError, match="under another name"):
        prepare_run(other, run.folder, run.config)
    assert before == {path: path.read_bytes() for path in run.prepared.rglob("*.*")}


def test_opening_what_is_no_run(tmp_path, run):
    with pytest.raises(DataError, match="no run folder"):
        open_run(tmp_path)
    (run.folder / "run.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        open_run(run.folder)


def test_a_prepared_case_that_is_gone_is_named(run):
    shutil.rmtree(run.prepared / "case_00002")
    with pytest.raises(DataError, match="lacks case_00002"):
        run.cases()


def test_tasks(run):
    assert len(run.tasks()) == len(set(run.tasks())) == 2 * len(VARIANTS)
    assert run.tasks(["tunet", "tunet"], [1]) == [("tunet", 1)]
    with pytest.raises(DataError, match="unknown: vnet"):
        run.tasks(["vnet"])
    with pytest.raises(DataError, match="folds 0 to 1, not 2"):
        run.tasks(folds=[2])


def test_a_run_is_plain_json(run):
    values = json.loads((run.folder / "run.json").read_text())
    assert values["folds"] == run.folds
    assert np.isfinite(run.cases()[0].volume(False)).all()
