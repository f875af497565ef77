"""A run folder: started, and gone on with."""

import json
import re
import shutil

import numpy as np
import pytest
from scans import SPACING_MM, box_scan, scan_config, write_scans

from tunet_lib.config import VARIANTS
from tunet_lib.files import DataError
from tunet_lib.kits19 import save_case
from tunet_lib.runs import LEFT_OUT, check_tasks, leave_out, left_out, open_run, prepare_run


def write_model(run, variant):
    """Leave what a training leaves first."""
    run.model_folder((variant, 0)).path.mkdir(parents=True)
    (run.model_folder((variant, 0)).path / "history.csv").touch()


@pytest.fixture
def data(tmp_path):
    write_scans(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def run(data, tmp_path):
    return prepare_run(data, tmp_path / "run", scan_config())[0]


def test_every_case_is_prepared_and_in_one_fold(data, tmp_path):
    seen = []
    run, unused = prepare_run(data, tmp_path / "run", scan_config(), on_case=seen.append)
    assert unused == {}
    assert sorted(seen) == sorted(run.folds[0] + run.folds[1])
    assert [len(fold) for fold in run.folds] == [2, 2]
    assert len(set(seen)) == 4
    assert [case.case_id for case in run.cases()] == sorted(seen)
    assert open_run(tmp_path / "run") == run


def test_starting_again_prepares_nothing_new(run, data):
    before = {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")}
    again, unused = prepare_run(data, run.folder, run.config)
    assert (again, unused) == (run, {})
    assert {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")} == before


def test_nothing_is_prepared_of_a_case_that_can_have_no_folder(tmp_path):
    for folder, name in (
        ("imagesTr", "Patient\u00a02_0000.nii.gz"),
        ("labelsTr", "Patient\u00a02.nii.gz"),
    ):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        (tmp_path / "raw" / folder / name).touch()
    with pytest.raises(DataError, match="no name of a case; rename its files"):
        prepare_run(tmp_path / "raw", tmp_path / "run", scan_config())
    assert not (tmp_path / "run").exists()


def test_a_bad_case_is_left_out_as_the_message_says_and_stays_so(data, tmp_path):
    (data / "case_00001" / "imaging.nii.gz").write_bytes(b"<html>")
    folder = tmp_path / "run"
    with pytest.raises(DataError, match=r"leave it out \(--leave-out case_00001\)"):
        prepare_run(data, folder, scan_config())
    with pytest.raises(DataError, match="has no case_00777"):
        leave_out(data, folder, ["case_00001", "case_00777"])
    assert left_out(folder) == []
    leave_out(data, folder, ["case_00001"])
    for _ in range(2):
        run, unused = prepare_run(data, folder, scan_config())
        assert unused == {"case_00001": LEFT_OUT}
        assert sorted(run.folds[0] + run.folds[1]) == ["case_00000", "case_00002", "case_00003"]
    write_model(run, "lnet")
    leave_out(data, folder, ["case_00001"])  # nothing new
    assert prepare_run(data, folder, scan_config())[0] == run
    with pytest.raises(DataError, match="were begun with case_00002; choose another folder"):
        leave_out(data, folder, ["case_00002"])
    (folder / "left_out.json").write_text("{}")
    with pytest.raises(DataError, match="is no list of cases; remove it"):
        prepare_run(data, folder, scan_config())


def test_what_cannot_be_prepared_stops_before_folds_are_dealt_over_the_rest(data, tmp_path):
    """It fails, it is run, it is mended, it is run: the folds are over all cases, and it ends."""
    kept = {name: (data / name / "imaging.nii.gz").read_bytes() for name in ("case_00001",)}
    image = data / "case_00001" / "imaging.nii.gz"
    image.write_bytes(image.read_bytes()[:-100])
    (data / "case_00002" / "imaging.nii.gz").unlink()
    save_case(data / "case_00008", *box_scan(8), spacing_mm=SPACING_MM)
    save_case(data / "case_00009", box_scan(9)[0], spacing_mm=SPACING_MM)
    with pytest.raises(DataError) as raised:
        prepare_run(data, tmp_path / "run", scan_config())
    assert "2 of 5 cases could not be prepared" in str(raised.value)
    assert re.search(r"case_00001: .*cut short.*; case_00002: has no imaging", str(raised.value))
    assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(DataError, match="is no run folder"):
        open_run(tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.npy")}
    assert len(before) == 3 * 3

    image.write_bytes(kept["case_00001"])
    save_case(data / "case_00002", *box_scan(2), spacing_mm=SPACING_MM)
    run, unused = prepare_run(data, tmp_path / "run", scan_config())
    assert set(unused) == {"case_00009"}
    assert "segmentation.nii.gz" in unused["case_00009"]
    assert sorted(run.folds[0] + run.folds[1]) == [f"case_0000{n}" for n in (0, 1, 2, 3, 8)]
    assert before.items() <= {p: p.stat().st_mtime_ns for p in before}.items()


def test_a_case_that_fails_when_a_run_goes_on_changes_no_folds(run, data, monkeypatch):
    write_model(run, "tunet")
    (run.prepared / "case_00002" / "volume.npy").unlink()

    def full(*_):
        raise DataError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("tunet_lib.preprocess.save_array", full)
        with pytest.raises(DataError, match=r"1 of 4 .*case_00002: the disk is full"):
            prepare_run(data, run.folder, run.config)
    assert open_run(run.folder) == run
    # Even if this version dealt otherwise: what is trained stays what it is.
    monkeypatch.setattr("tunet_lib.runs.split_folds", lambda *_: [])
    assert prepare_run(data, run.folder, run.config) == (run, {})


def test_no_good_case_is_an_error_that_says_why(tmp_path):
    case = save_case(tmp_path / "data" / "case_00000", *box_scan(0), spacing_mm=SPACING_MM)
    case.image_path.write_bytes(b"")
    with pytest.raises(DataError, match=r"case_00000.*is empty"):
        prepare_run(tmp_path / "data", tmp_path / "run", scan_config())
    save_case(tmp_path / "other" / "case_00000", box_scan(0)[0], spacing_mm=SPACING_MM)
    with pytest.raises(DataError, match="no case has a label map"):
        prepare_run(tmp_path / "other", tmp_path / "run", scan_config())


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
    run.model_folder(("unet2d", 0)).path.mkdir(parents=True)  # nothing is in it
    save_case(data / "case_00006", *box_scan(6), spacing_mm=SPACING_MM)
    assert sum(map(len, prepare_run(data, run.folder, run.config)[0].folds)) == 6
    write_model(run, "tunet")
    save_case(data / "case_00005", *box_scan(5), spacing_mm=SPACING_MM)
    with pytest.raises(DataError, match="trained on other cases"):
        prepare_run(data, run.folder, run.config)


def test_models_stay_with_their_data(run, data):
    write_model(run, "tunet")
    other = data.parent / "other"
    shutil.copytree(data, other)
    save_case(
        other / "case_00000", *box_scan(9), spacing_mm=SPACING_MM
    )  # another patient, by the same name
    before = {path: path.read_bytes() for path in run.prepared.rglob("*.*")}
    with pytest.raises(DataError, match=r"trained on other cases \(.*changed: case_00000\)"):
        prepare_run(other, run.folder, run.config)
    assert before == {path: path.read_bytes() for path in run.prepared.rglob("*.*")}


def test_a_label_map_that_is_corrected_after_trainings_began_is_refused(run, data):
    write_model(run, "tunet")
    path = data / "case_00003" / "segmentation.nii.gz"
    kept = path.read_bytes()
    path.write_bytes((data / "case_00002" / "segmentation.nii.gz").read_bytes())
    with pytest.raises(DataError, match=r"changed: case_00003\); .* bring back what was in"):
        prepare_run(data, run.folder, run.config)
    path.write_bytes(kept)
    assert prepare_run(data, run.folder, run.config) == (run, {})


def test_the_data_may_move_and_the_run_goes_on(run, data, tmp_path):
    write_model(run, "tunet")
    before = {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")}
    data.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="if it has moved, run `tunet prepare` with its new place"):
        run.sources()
    moved, _ = prepare_run(tmp_path / "moved", run.folder, run.config)
    assert moved.folds == run.folds
    assert moved.data == tmp_path / "moved"
    assert set(moved.sources()) == {case.case_id for case in moved.cases()}
    assert {p: p.stat().st_mtime_ns for p in run.prepared.rglob("*.npy")} == before


def test_opening_what_is_no_run(tmp_path, run):
    with pytest.raises(DataError, match="no run folder"):
        open_run(tmp_path)


FOLDS = [["case_00000", "case_00002"], ["case_00001", "case_00003"]]


@pytest.mark.parametrize(
    "values",
    [
        *([], {}, None, 3, {"data": "data"}, {"folds": FOLDS}),
        *({"data": 3, "folds": FOLDS}, {"data": None, "folds": FOLDS}),
        *({"data": "data", "folds": wrong} for wrong in ("ab", 2, None, [], [[]], [[], ["a"]])),
        *({"data": "data", "folds": wrong} for wrong in (FOLDS[:1], [["a"], ["a"]], [["a"], [1]])),
        *(
            {"data": "data", "folds": [["a"], [name]]}
            for name in ("../a", "/etc/a", ".", "", "a\0")
        ),
    ],
)
def test_a_damaged_description_of_a_run(run, values):
    (run.folder / "run.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"run\.json.*: is damaged"):
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


def test_what_is_left_out_may_be_damaged(run, data):
    leave_out(data, run.folder, ["case_00003"])
    run, _ = prepare_run(data, run.folder, run.config)
    (run.prepared / "case_00003" / "volume.npy").write_bytes(b"")
    assert len(run.cases()) == 3


def test_a_case_that_goes_missing_later_is_not_to_be_left_out(run, data):
    write_model(run, "tunet")
    (data / "case_00002" / "imaging.nii.gz").unlink()
    with pytest.raises(DataError, match="could not be prepared") as raised:
        prepare_run(data, run.folder, run.config)
    assert "--leave-out" not in str(raised.value)


def test_too_much_that_is_left_out_can_be_taken_back(data, tmp_path):
    leave_out(data, tmp_path / "run", ["case_00001", "case_00002", "case_00003"])
    with pytest.raises(DataError, match=r"cannot be split .*; remove .*left_out\.json"):
        prepare_run(data, tmp_path / "run", scan_config())
    (tmp_path / "run" / "left_out.json").unlink()
    assert len(prepare_run(data, tmp_path / "run", scan_config())[0].cases()) == 4


@pytest.mark.parametrize(("variants", "folds"), [(["tunnet"], None), (None, [2])])
def test_what_cannot_be_trained_is_said_first(variants, folds):
    with pytest.raises(DataError, match=r"unknown: tunnet|there are folds 0 to 1, not 2"):
        check_tasks(scan_config(), variants, folds)


def test_models_on_another_disk_keep_the_folds(run, data, tmp_path):
    write_model(run, "tunet")
    fold = run.folder / "models" / "fold_0"
    fold.rename(tmp_path / "far")
    fold.symlink_to(tmp_path / "far", target_is_directory=True)
    (data / "case_00003").rename(data / "case_00007")
    with pytest.raises(DataError, match="models"):
        prepare_run(data, run.folder, run.config)
    with pytest.raises(DataError, match="has trainings that were begun"):
        leave_out(data, run.folder, ["case_00000"])


def test_what_a_file_manager_leaves_is_no_model(run, data):
    (run.folder / "models").mkdir()
    (run.folder / "models" / ".DS_Store").touch()
    leave_out(data, run.folder, ["case_00000"])
