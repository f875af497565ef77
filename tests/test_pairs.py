"""Any folder of label maps, scored."""

import csv
import shutil
import unicodedata

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from tunet_lib.cli import app
from tunet_lib.files import DataError
from tunet_lib.kits19 import save_case
from tunet_lib.pairs import (
    FIELDS,
    differences,
    find_labels,
    interval,
    read_pairs,
    score_pairs,
    write_pairs,
)
from tunet_lib.scans import load_label_map, save_label

SPACING_MM = (3.0, 1.0, 1.0)


def ball(shift=0):
    label = np.zeros((8, 12, 12), np.uint8)
    label[2:6, 2:8, 2 + shift : 8 + shift] = 1
    label[3:5, 3:6, 3 + shift : 6 + shift] = 2
    return label


@pytest.fixture
def folders(tmp_path):
    """Three true cases; predictions of two: one is right, one is two voxels off along x."""
    truth, ours = tmp_path / "truth", tmp_path / "ours"
    ours.mkdir()
    for n in range(3):
        name = f"case_{n:05d}"
        save_case(truth / name, np.zeros((8, 12, 12), np.float32), ball(), spacing_mm=SPACING_MM)
        if n < 2:
            true = load_label_map(truth / name / "segmentation.nii.gz")
            save_label(ball(2 * n), true, ours / f"prediction_{n:05d}.nii.gz")
    return ours, truth


def test_what_is_right_what_is_off_and_what_is_missing(folders):
    right, off, missing = score_pairs(*folders)
    assert (right["whole"], right["tumor"], right["whole_hd95_mm"]) == (1, 1, 0)
    assert right["tumor_surface_dice"] == 1
    assert off["whole"] == pytest.approx(2 / 3)
    assert off["tumor"] == pytest.approx(1 / 3)
    assert off["mean"] == pytest.approx(1 / 2)
    assert off["whole_hd95_mm"] == pytest.approx(2)
    assert not missing["predicted"]
    assert (missing["mean"], missing["tumor_hd95_mm"]) == (0, np.inf)


def test_nobody_is_rewarded_for_leaving_out_a_patient_without_a_tumor(folders):
    ours, truth = folders
    healthy = np.minimum(ball(), 1)
    volume = np.zeros((8, 12, 12), np.float32)
    save_case(truth / "case_00003", volume, healthy, spacing_mm=SPACING_MM)
    missing = score_pairs(ours, truth)[-1]
    assert (missing["case_id"], missing["predicted"]) == ("case_00003", False)
    assert [missing[name] for name in FIELDS[2:]] == [0, 0, 0, np.inf, 0, np.inf, 0]


def test_a_label_map_in_two_files_is_one(tmp_path):
    for name in ("case_00000.hdr", "case_00000.img"):
        (tmp_path / name).write_bytes(b"")
    assert find_labels(tmp_path) == {"case_00000": tmp_path / "case_00000.hdr"}


def test_dicom_beside_a_label_map_of_its_case_is_no_other_one(tmp_path):
    for name in ("case_00000/IM1.dcm", "case_00000/segmentation.nii.gz", "case_00001.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_labels(tmp_path) == {
        "case_00000": tmp_path / "case_00000" / "segmentation.nii.gz",
        "case_00001": tmp_path / "case_00001.dcm",  # that it is not read is said
    }


@pytest.mark.parametrize(
    ("old", "new"), [(",True,", ",yes,"), (",True,", ",,"), (",False,0.0,", ",False,0.0,0.0,")]
)
def test_a_table_with_something_else_in_it_is_refused(folders, tmp_path, old, new):
    write_pairs(tmp_path / "scores.csv", score_pairs(*folders))
    text = (tmp_path / "scores.csv").read_text("utf-8")
    assert old in text
    (tmp_path / "scores.csv").write_text(text.replace(old, new), "utf-8")
    with pytest.raises(DataError, match="is no table of scores"):
        read_pairs(tmp_path / "scores.csv")


@pytest.mark.parametrize(
    ("path", "case_id"),
    [
        ("case_00007/segmentation.nii.gz", "case_00007"),
        ("case_00007.nii.gz", "case_00007"),
        ("case_00007_label.nii", "case_00007"),
        ("prediction_00007.nii.gz", "case_00007"),
        ("case_00007/imaging_label.nii.gz", "case_00007"),
        ("ada/segmentation.nii.gz", "ada"),
        ("ada_seg.nii.gz", "ada"),
        ("liver_12.nii.gz", "liver_12"),
    ],
)
def test_a_case_is_found_in_the_names_that_people_use(tmp_path, path, case_id):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_bytes(b"")
    (tmp_path / "imaging.nii.gz").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert find_labels(tmp_path) == {case_id: tmp_path / path}


def test_two_of_a_case_and_none_at_all_are_told(tmp_path):
    with pytest.raises(DataError, match="no label map"):
        find_labels(tmp_path)
    for name in ("case_00001.nii.gz", "prediction_00001.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="also in"):
        find_labels(tmp_path)


def test_names_that_fit_no_case_and_another_geometry_are_told(folders, tmp_path):
    _, truth = folders
    other = tmp_path / "other"
    save_case(
        other / "case_00009", np.zeros((8, 12, 12), np.float32), ball(), spacing_mm=SPACING_MM
    )
    with pytest.raises(DataError, match="no file is named as a case"):
        score_pairs(other, truth)
    (other / "case_00009").rename(other / "case_00001")
    assert score_pairs(other, truth)[1]["mean"] == 1
    save_case(other / "case_00001", np.zeros((8, 12, 12), np.float32), ball(), spacing_mm=(2, 1, 1))
    with pytest.raises(DataError, match="case_00001"):
        score_pairs(other, truth)


def test_of_two_systems_it_is_said_which_lacks_a_case(folders, tmp_path):
    ours, truth = folders
    other = tmp_path / "other"
    other.mkdir()
    (other / "prediction_00000.nii.gz").write_bytes((ours / "prediction_00000.nii.gz").read_bytes())
    command = ["score", str(ours), str(truth), "--against", str(other)]
    printed = " ".join(CliRunner().invoke(app, command).output.split())
    assert printed.count(f"no prediction in {ours};") == 1
    assert printed.count(f"no prediction in {other};") == 2
    with pytest.raises(DataError, match="nowhere: is no folder"):
        find_labels(tmp_path / "nowhere")


def test_label_maps_of_nnunet_and_kits21_are_found_by_their_cases(folders, tmp_path):
    folder = tmp_path / "more"
    true = load_label_map(folders[1] / "case_00000" / "segmentation.nii.gz")
    for name in ("ours/pat_0_0000_label", "truth/pat_0", "truth/case_00007/aggregated_MAJ_seg"):
        save_label(true.label, true, folder / f"{name}.nii.gz")
    for name in ("aggregated_AND_seg", "aggregated_OR_seg", "segmentations/kidney_1_annotation-1"):
        save_label(true.label, true, folder / f"truth/case_00007/{name}.nii.gz")
    assert list(find_labels(folder / "truth")) == ["case_00007", "pat_0"]
    found = {
        row["case_id"]: row["predicted"] for row in score_pairs(folder / "ours", folder / "truth")
    }
    assert found == {"case_00007": False, "pat_0": True}


def test_scores_come_back_from_their_file(folders, tmp_path):
    rows = score_pairs(*folders)
    write_pairs(tmp_path / "scores.csv", rows)
    assert read_pairs(tmp_path / "scores.csv") == rows
    (tmp_path / "scores.csv").write_text("what\nis this\n")
    with pytest.raises(DataError, match="tunet score"):
        read_pairs(tmp_path / "scores.csv")


def test_a_table_that_went_through_a_spreadsheet(folders, tmp_path):
    rows = score_pairs(*folders)
    write_pairs(tmp_path / "scores.csv", rows)
    content = (tmp_path / "scores.csv").read_bytes()
    (tmp_path / "marked.csv").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert read_pairs(tmp_path / "marked.csv") == rows
    (tmp_path / "marked.csv").write_bytes(content.replace(b"True", b"TRUE"))
    assert read_pairs(tmp_path / "marked.csv") == rows
    for bad in (content.replace(b",", b";"), content.replace(b"case_id", b"case"), b"\0" * 99):
        (tmp_path / "bad.csv").write_bytes(bad)
        with pytest.raises(DataError, match="is no table of scores"):
            read_pairs(tmp_path / "bad.csv")


def test_an_interval_of_one_number_has_no_width_and_of_many_holds_their_mean():
    assert interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    values = np.random.default_rng(0).normal(0.3, 0.1, 100)
    mean, low, high = interval(values)
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / 10, rel=0.3)
    assert str(interval([0.5])) == "0.500"
    assert str(interval([0.5, 0.25, np.inf])) == "inf"


def test_differences_are_of_the_same_case():
    one = [{"case_id": c, "tumor": v} for c, v in (("a", 0.5), ("b", 0.7))]
    other = [{"case_id": c, "tumor": v} for c, v in (("b", 0.4), ("a", 0.1), ("c", 0))]
    assert differences(one, other, "tumor") == pytest.approx([0.4, 0.3])


def test_the_command(folders, tmp_path):
    ours, truth = map(str, folders)
    arguments = ["score", ours, truth, "--against", truth, "--out", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "case_00002: no prediction" in result.output
    assert "3 cases scored\nDSC of whole: 0.556" in result.output
    assert "-0.444" in result.output
    with (tmp_path / "out.csv").open() as stream:
        assert tuple(csv.DictReader(stream).fieldnames) == FIELDS
    label = folders[0] / "prediction_00000.nii.gz"
    kept = label.read_bytes()
    refused = CliRunner().invoke(app, ["score", ours, truth, "--out", str(label)])
    assert isinstance(refused.exception, DataError)
    assert label.read_bytes() == kept


def test_cysts_count_as_kidney_if_that_is_asked_for(folders):
    ours, truth = folders
    path = truth / "case_00000" / "segmentation.nii.gz"
    image = nib.load(path)
    voxels = np.array(image.dataobj)
    voxels[voxels == 1] = 3
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), path)
    command = ["score", str(ours), str(truth)]
    refused = CliRunner().invoke(app, command)
    assert "--cyst-as kidney" in str(refused.exception)
    assert CliRunner().invoke(app, [*command, "--cyst-as", "kidney"]).exit_code == 0
    assert score_pairs(ours, truth, cyst_as_kidney=True)[0]["whole"] == 1


def test_a_name_that_is_no_text_is_written_as_one(folders, tmp_path):
    rows = score_pairs(*folders)
    rows[0]["case_id"] = "M\udcfcller"
    write_pairs(tmp_path / "out.csv", rows)
    assert read_pairs(tmp_path / "out.csv")[0]["case_id"] == "M\\xfcller"


def test_folders_that_are_links_count_and_a_link_back_is_not_followed(folders, tmp_path):
    ours, truth = folders
    (truth / "case_00002").rename(tmp_path / "far")
    (truth / "case_00002").symlink_to(tmp_path / "far", target_is_directory=True)
    (tmp_path / "far" / "back").symlink_to(truth, target_is_directory=True)
    assert sorted(find_labels(truth)) == ["case_00000", "case_00001", "case_00002"]
    linked = tmp_path / "linked"
    linked.symlink_to(ours, target_is_directory=True)
    assert len(score_pairs(linked, truth)) == 3


def test_what_has_no_true_label_map_is_named(folders):
    ours, truth = folders
    (truth / "case_00001" / "segmentation.nii.gz").unlink()
    result = CliRunner().invoke(app, ["score", str(ours), str(truth)])
    said = " ".join(result.output.split())
    assert f"{ours}: not scored, since {truth} has no such case: case_00001" in said
    assert result.exit_code == 0


def test_each_structure_of_kits23_is_no_label_map_of_its_own(folders):
    _, truth = folders
    name = "instances/kidney_instance-1_annotation-1.nii.gz"
    (truth / "case_00000" / "instances").mkdir()
    (truth / "case_00000" / name).write_bytes(
        (truth / "case_00000" / "segmentation.nii.gz").read_bytes()
    )
    assert len(find_labels(truth)) == 3


@pytest.mark.parametrize("name", ["seg", "pred", "mask", "labels"])
def test_a_folder_for_each_patient(folders, tmp_path, name):
    ours, _ = folders
    for number, path in enumerate(sorted(ours.iterdir())):
        (tmp_path / "all" / f"P{number}").mkdir(parents=True)
        path.rename(tmp_path / "all" / f"P{number}" / f"{name}.nii.gz")
    assert list(find_labels(tmp_path / "all")) == ["P0", "P1"]


def test_an_accent_may_be_written_in_two_ways(folders, tmp_path):
    ours, _ = folders
    for form, folder in (("NFC", "a"), ("NFD", "b")):
        (tmp_path / folder).mkdir()
        name = unicodedata.normalize(form, "M\u00fcller")
        shutil.copy(ours / "prediction_00000.nii.gz", tmp_path / folder / f"{name}.nii.gz")
    (row,) = score_pairs(tmp_path / "a", tmp_path / "b")
    assert row["predicted"]
    assert row["whole"] == 1
