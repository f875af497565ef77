"""Many CTs in one call."""

import csv
import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from scans import SPACING_MM, box_scan, save_network, scan_config, write_scans
from typer.testing import CliRunner

from tunet_lib import batch, model
from tunet_lib.batch import Job, plan, predict_each, write_report
from tunet_lib.cli import app
from tunet_lib.files import DataError, DataWarning
from tunet_lib.kits19 import save_case
from tunet_lib.scans import load_label, load_scan


def tunet(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("tunet_seb", "lnet_median")):
        save_network(folder / name, name, scan_config(levels=1), seed)
    return folder


@pytest.fixture
def data(tmp_path):
    write_scans(tmp_path / "data", 3)
    return tmp_path / "data"


# Which CTs, and where to


def test_label_maps_are_named_after_their_cts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.nii.gz", "b.nrrd", "c.d.mha"):
        (tmp_path / name).touch()
    cts = [tmp_path / name for name in ("a.nii.gz", "b.nrrd", "c.d.mha")]
    assert [job.output.name for job in plan(cts)] == [
        "a_label.nii.gz",
        "b_label.nii.gz",
        "c.d_label.nii.gz",
    ]
    out = plan(cts[:2], tmp_path / "out", suffix=".nrrd")
    assert [job.output for job in out] == [
        tmp_path / "out" / "a_label.nrrd",
        tmp_path / "out" / "b_label.nrrd",
    ]


def test_a_folder_stands_for_the_cts_in_it(tmp_path, data):
    assert [job.ct.parent.name for job in plan([data], tmp_path / "out")] == [
        f"case_0000{number}" for number in range(3)
    ]
    assert plan([data], tmp_path / "out")[1].output.name == "case_00001_label.nii.gz"
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("b.nii.gz", "a.nii", "pair.hdr", "pair.img", ".hidden.nii", "notes.txt"):
        (plain / name).touch()
    names = [job.ct.name for job in plan([plain], tmp_path / "out")]
    assert names == ["a.nii", "b.nii.gz", "pair.hdr"]


def test_of_a_data_set_it_is_said_what_is_not_predicted(tmp_path):
    for name in ("imagesTr/a_0000.nii.gz", "imagesTr/b.nii.gz", "imagesTs/c_0000.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "imagesTr" / "notes.txt").touch()  # no image, and not missed
    with pytest.warns(DataWarning) as caught:
        (job,) = plan([tmp_path], tmp_path / "out")
    assert job.ct.name == "a_0000.nii.gz"
    assert [str(each.message).removeprefix(f"{tmp_path}: ") for each in caught] == [
        "not used: imagesTr/b.nii.gz: lacks the channel, _0000, in its name",
        "not used: imagesTs: is the test set",
    ]
    shown = tunet("predict", tmp_path, "-o", tmp_path / "out", "--models", tmp_path / "none")
    assert "not used: imagesTs: is the test set" in shown.output


def test_no_label_map_replaces_a_slice_of_a_series(tmp_path):
    dicoms = pytest.importorskip("dicoms", reason="the extra formats is not installed")
    folder = dicoms.write(tmp_path / "ct", dicoms.series(), "IM{:03d}.dcm")
    with pytest.raises(DataError, match="is the CT itself"):
        plan([folder], folder / "IM003.dcm")
    # One of an earlier call is no slice.
    dicoms.slice_of(dicoms.stored()[0], (0, 0, 0), Modality="SEG").save_as(folder / "label.dcm")
    assert plan([folder], folder / "label.dcm")[0].output == folder / "label.dcm"


def test_a_folder_may_be_predicted_into_itself_again(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz", "of_label.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "not mounted.nii.gz")
    jobs = plan([tmp_path], tmp_path)
    names = ["a.nii.gz", "b.nii.gz", "gone.nii.gz", "of_label.nii.gz"]
    assert [job.ct.name for job in jobs] == names
    for job in jobs:
        job.output.touch()
    assert [job.ct.name for job in plan([tmp_path], tmp_path)] == names


def test_a_folder_that_may_not_be_looked_into_stops_no_other(tmp_path, monkeypatch):
    (tmp_path / "a.nii.gz").touch()
    locked, is_dir = tmp_path / "locked" / "b.nii.gz", Path.is_dir

    def refuse(path):
        if path == locked:
            raise PermissionError
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    jobs = plan([tmp_path / "a.nii.gz", locked], tmp_path / "out")
    assert [job.ct for job in jobs] == [tmp_path / "a.nii.gz", locked]


def test_a_link_into_a_cache_is_named_as_it_is_called(tmp_path):
    """rordenlab/MRIcroGL#39: the output was named after the blob."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "9f86d081").touch()
    for case in ("case_00001", "case_00002"):
        (tmp_path / case).mkdir()
        (tmp_path / case / "imaging.nii.gz").symlink_to(tmp_path / "blobs" / "9f86d081")
    cts = [tmp_path / case / "imaging.nii.gz" for case in ("case_00001", "case_00002")]
    names = [job.output.name for job in plan(cts, tmp_path / "out")]
    assert names == ["case_00001_label.nii.gz", "case_00002_label.nii.gz"]


def test_a_ct_that_is_named_twice_is_segmented_once(tmp_path, data):
    one = data / "case_00000" / "imaging.nii.gz"
    around = data / "case_00001" / ".." / "case_00000" / one.name
    jobs = plan([one, data, one, around], tmp_path)
    assert [job.output.name for job in jobs] == [f"case_0000{k}_label.nii.gz" for k in range(3)]


def test_cts_of_one_name_are_told_apart_by_their_folders(tmp_path):
    cts = [tmp_path / "one" / "ct.nii.gz", tmp_path / "two" / "ct.nii.gz"]
    names = [job.output.name for job in plan(cts, tmp_path / "out")]
    assert names == ["one_ct_label.nii.gz", "two_ct_label.nii.gz"]
    with pytest.raises(DataError, match="would be the label map of two CTs"):
        plan([cts[0], tmp_path / "again" / "one" / "ct.nii.gz"], tmp_path / "out")


@pytest.mark.parametrize("other", ["CT", unicodedata.normalize("NFD", "Müller")])
def test_names_are_told_apart_also_where_a_file_system_would_not(tmp_path, other):
    first = {"CT": "ct"}.get(other, "M\u00fcller")
    cts = [tmp_path / "one" / f"{first}.nii.gz", tmp_path / "two" / f"{other}.nii.gz"]
    names = [job.output.name for job in plan(cts, tmp_path / "out")]
    assert names == [f"one_{first}_label.nii.gz", f"two_{other}_label.nii.gz"]


def test_a_ct_by_another_of_its_names_is_not_written_over(tmp_path):
    """As of ct.nii.gz and CT.nii.gz where case is ignored, and here by a link."""
    (tmp_path / "ct.nii.gz").touch()
    os.link(tmp_path / "ct.nii.gz", tmp_path / "CT.nii.gz")
    with pytest.raises(DataError, match="is the CT itself"):
        plan([tmp_path / "ct.nii.gz"], tmp_path / "CT.nii.gz")


def test_outputs_that_cannot_be_are_refused_before_anything_is_computed(tmp_path):
    cts = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    with pytest.raises(DataError, match="is one file, for 2 CTs"):
        plan(cts, tmp_path / "label.nii.gz")
    with pytest.raises(DataError, match="must end in"):
        plan(cts[:1], tmp_path / "label.png")
    with pytest.raises(DataError, match="is the CT itself"):
        plan(cts[:1], cts[0])
    (tmp_path / "circle.nii.gz").symlink_to("circle.nii.gz")
    plan([tmp_path / "circle.nii.gz"], tmp_path / "out")  # what is wrong is said in its turn
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write here"):
        plan(cts, tmp_path / "file")
    (tmp_path / "a_label.nii.gz").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        plan(cts, tmp_path)


# What comes of them


class Pretended:
    """Networks that are none."""

    def __len__(self):
        return 2


def pretend(scan, networks, *, on_part, **_):
    on_part(1.0)
    warnings.warn(f"{scan.file.path}: is odd", stacklevel=1)
    warnings.warn(f"{scan.file.path}: is odd", stacklevel=1)
    on_part(1.0)
    label = np.zeros(scan.shape, np.uint8)
    label[:2, :2, :2], label[:2, :2, -2:] = 1, 2
    return label


def test_one_bad_ct_does_not_stop_the_rest(data, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "predict_scan", pretend)
    bad = data / "case_00001" / "imaging.nii.gz"
    bad.write_bytes(b"<html>")
    parts = []
    outcomes = list(predict_each(plan([data], tmp_path), Pretended(), on_part=parts.append))
    assert [bool(each.failure) for each in outcomes] == [False, True, False]
    assert outcomes[1].failure.startswith("is not a NIfTI image (a web page)")
    assert sum(parts) == 6
    notes = [note for note in outcomes[0].notes if "odd" in note]
    assert notes == [f"{outcomes[0].job.ct}: is odd"]
    # 8 voxels of 0.064 ml each; 32 columns of 4 mm are narrower than two kidneys need.
    assert outcomes[0].total_ml("kidney") == outcomes[0].total_ml("tumor") == pytest.approx(0.512)
    write_report(tmp_path / "report.csv", outcomes)
    with (tmp_path / "report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["ct"] for row in rows] == [str(each.job.ct) for each in outcomes]
    assert rows[1]["failure"] == outcomes[1].failure
    assert rows[1]["kidney_left_ml"] == rows[1]["label_map"] == ""
    sides = {name: float(rows[0][f"{name}_ml"]) for name in outcomes[0].volumes_ml}
    assert sides == {"kidney_left": 0, "kidney_right": 0.5, "tumor_left": 0.5, "tumor_right": 0}
    assert "is odd" in rows[0]["warnings"]
    assert float(rows[0]["seconds"]) >= 0


def test_names_of_any_bytes_are_readable_in_the_report(tmp_path):
    names = [os.fsdecode(name) for name in (b"\xe9t\xe9", "東京".encode(), b"a,b\n")]
    outcomes = [batch.Outcome(Job(Path(name), tmp_path / "out"), failure=name) for name in names]
    write_report(tmp_path / "report.csv", outcomes)
    with (tmp_path / "report.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["ct"] for row in rows] == [row["failure"] for row in rows]
    assert [row["ct"] for row in rows] == ["\\xe9t\\xe9", "東京", "a,b\n"]


def test_a_report_never_replaces_a_ct_or_a_label_map(data, models, tmp_path):
    ct = data / "case_00000" / "imaging.nii.gz"
    kept = ct.read_bytes()
    for report in (ct, tmp_path / "label.nii.gz"):
        result = tunet("predict", ct, "-o", tmp_path / "label.nii.gz", "--report", report)
        assert isinstance(result.exception, DataError)
        assert "is to be a table" in str(result.exception)
    assert ct.read_bytes() == kept
    assert not (tmp_path / "label.nii.gz").exists()


def test_only_a_series_of_dicom_can_have_a_dicom_seg(data, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "predict_scan", None)  # never called
    job = Job(data / "case_00000" / "imaging.nii.gz", tmp_path / "label.dcm")
    (outcome,) = predict_each([job], Pretended())
    assert "DICOM SEG refers to slices of DICOM" in outcome.failure


def test_the_command_builds_each_network_once_and_reports(data, models, tmp_path, monkeypatch):
    """wasserth/TotalSegmentator#171, MIC-DKFZ/nnUNet#2004: many CTs in one call."""
    build, built = model.build, []

    def counted(variant, config):
        built.append(variant.name)
        return build(variant, config)

    monkeypatch.setattr(model, "build", counted)
    (data / "case_00001" / "imaging.nii.gz").write_bytes(b"")
    report = tmp_path / "out" / "report.csv"
    result = tunet(
        *(
            "predict",
            data / "case_00000" / "imaging.nii.gz",
            data / "case_00001" / "imaging.nii.gz",
        ),
        *(data / "case_00002" / "imaging.nii.gz", "--models", models),
        *("--output", tmp_path / "out", "--report", report),
    )
    assert result.exit_code == 1
    assert sorted(built) == ["lnet_median", "tunet_seb"]
    # Told at once, and at the end.
    assert result.stderr.count("is empty") == 2
    assert (tmp_path / "out" / "case_00002_label.nii.gz").exists()
    assert len(report.read_text().splitlines()) == 4
    scan = load_scan(data / "case_00000" / "imaging.nii.gz")
    assert load_label(tmp_path / "out" / "case_00000_label.nii.gz", scan).shape == scan.shape


@pytest.mark.parametrize("rule", [True, False])
def test_the_rule_of_line_14_can_be_switched_off_and_is_told(models, tmp_path, monkeypatch, rule):
    """A network that sees a kidney and nothing of a tumor."""

    def see_a_kidney(self, volumes, **_):
        volume = volumes[self.variant.median]
        prob = np.zeros((*volume.shape, len(self.variant.regions)), np.float32)
        prob[2:5, 4:10, 4:10, 0] = 1
        return prob

    monkeypatch.setattr(model.Model, "predict", see_a_kidney)
    ct = save_case(tmp_path / "case_00000", box_scan(0)[0], spacing_mm=SPACING_MM).image_path
    switch = [] if rule else ["--no-tumor-rule"]
    result = tunet("predict", ct, "--models", models, "-o", tmp_path / "label.nii.gz", *switch)
    assert result.exit_code == 0, result.output
    label = load_label(tmp_path / "label.nii.gz")
    assert set(np.unique(label)) == ({0, 2} if rule else {0, 1})
    assert ("Algorithm 1, line 14" in result.output) == rule


def test_two_kidneys_and_a_tumor_in_a_sentence(tmp_path):
    found = {"kidney_left": 150.4, "kidney_right": 140.2, "tumor_left": 0.0, "tumor_right": 30.0}
    outcome = batch.Outcome(Job(tmp_path / "a", tmp_path / "b"), volumes_ml=found)
    assert str(outcome).endswith("b: kidney 291 ml, tumor 30 ml")


def test_one_case_of_kits19_is_one_ct(tmp_path):
    write_scans(tmp_path / "data", 1)
    (job,) = plan([tmp_path / "data" / "case_00000"], tmp_path / "label.nii.gz")
    assert job.ct == tmp_path / "data" / "case_00000" / "imaging.nii.gz"
