"""Data folders as people have them."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from scans import SPACING_MM, box_scan, scan_config, write_scans
from typer.testing import CliRunner

from tunet_lib.batch import plan
from tunet_lib.check import check_folder
from tunet_lib.cli import app
from tunet_lib.files import DataError
from tunet_lib.kits19 import Case, find_cases
from tunet_lib.layouts import find_data
from tunet_lib.preprocess import prepare_case
from tunet_lib.runs import open_run, prepare_run
from tunet_lib.scans import ipl_affine, load_label, load_scan, save_label


def tunet(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


KITS19 = ("case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz")


# KiTS


@pytest.mark.parametrize("root", ["", "dataset", "data", "kits21/data"])
def test_kits_is_found_from_its_repository_as_well(tmp_path, root):
    touch(tmp_path / root, *KITS19, "kits23.json", "LICENSE")
    data = find_data(tmp_path)
    assert data.folder == tmp_path / root
    assert data.cases == find_cases(tmp_path / root)
    assert data.unused == {}


def test_kits21_has_the_majority_of_its_label_maps(tmp_path):
    names = [f"case_00000/{name}.nii.gz" for name in ("imaging", "aggregated_MAJ_seg")]
    touch(tmp_path, *names, "case_00000/aggregated_OR_seg.nii.gz", "case_00000/segmentations/a")
    data = find_data(tmp_path)
    assert data.cases == [Case("case_00000", *(tmp_path / name for name in names))]
    assert data.unused == {
        "is not named imaging.nii.gz or segmentation.nii.gz": [
            "case_00000/aggregated_OR_seg.nii.gz",
            "case_00000/segmentations",
        ]
    }


def test_what_is_not_used_is_listed_with_its_reason(tmp_path):
    touch(tmp_path, *KITS19, "case_00000/imaging (1).nii.gz", "case_1/imaging.nii.gz", ".DS_Store")
    touch(tmp_path, "case_00001/imaging.nii.gz", "case_00002/segmentation.nii.gz", "notes.txt")
    (tmp_path / "case_00003").mkdir()
    data = find_data(tmp_path)
    assert [case.case_id for case in data.cases] == ["case_00000", "case_00001", "case_00002"]
    assert list(data.sentences()) == [
        "not used: case_00000/imaging (1).nii.gz: is not named imaging.nii.gz or "
        "segmentation.nii.gz",
        "not used: case_00001: has no label map, and training needs one",
        "not used: case_00002: has no CT",
        "not used: case_00003: holds neither CT nor label map",
        "not used: case_1, notes.txt: is no folder named case_ and five digits",
    ]


def test_of_many_the_first_few_are_named(tmp_path):
    touch(tmp_path, *KITS19, *(f"x{number}" for number in range(9)))
    (sentence,) = find_data(tmp_path).sentences()
    assert sentence.startswith("not used: x0, x1, x2, x3, x4 and 4 more: is no folder")


# nnU-Net


def test_nnunets_raw_folders(tmp_path):
    root = tmp_path / "Dataset220_KiTS"
    touch(root / "imagesTr", "a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "c.nii.gz", "x.txt")
    touch(root / "imagesTr", "h_0000.hdr", "h_0000.img")
    touch(root / "labelsTr", "a.nii.gz", "d.nii.gz")
    touch(root / "imagesTs", "e_0000.nii.gz")
    for folder in (root, tmp_path):
        data = find_data(folder)
        assert data.folder == root
        assert data.cases == [
            Case("a", root / "imagesTr" / "a_0000.nii.gz", root / "labelsTr" / "a.nii.gz"),
            Case("b", root / "imagesTr" / "b_0000.nii.gz", None),
            Case("d", None, root / "labelsTr" / "d.nii.gz"),
            Case("h", root / "imagesTr" / "h_0000.hdr", None),
        ]
        assert data.unused == {
            "is another channel than the first": ["imagesTr/b_0001.nii.gz"],
            "lacks the channel, _0000, in its name": ["imagesTr/c.nii.gz"],
            "is no image": ["imagesTr/x.txt"],
            "has no label map, and training needs one": ["b", "h"],
            "has no CT": ["d"],
            "is the test set": ["imagesTs"],
        }


def test_nnunets_description_must_name_the_labels_as_here(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")

    def described(**description):
        (tmp_path / "dataset.json").write_text(json.dumps(description))
        return find_data(tmp_path)

    regions = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    described(labels=regions, channel_names={"0": "CT"})
    described(labels={"0": "background", "1": "kidney", "2": "tumor"}, modality={"0": "CT"})
    with pytest.raises(DataError, match="gives tumor the label 1, expected 2"):
        described(labels={"kidney": 2, "tumor": 1} | {"tumor": 1, "kidney": 1})
    with pytest.raises(DataError, match="gives kidney the label 2, expected 1"):
        described(labels={"0": "background", "2": "kidney", "1": "tumor"})
    described(labels={"Kidney": "1", "kidney tumour": 2.0, "kidney cyst": 3, "background": 0})
    for wrong in ({"kidney": 2.0}, {"Tumour": "1"}, {"left kidney": 1, "right kidney": 2}):
        with pytest.raises(DataError, match="recode"):
            described(labels=wrong)
    with pytest.raises(DataError, match="its first channel is MRI, expected CT"):
        described(channel_names={"0": "MRI"})


def test_several_data_sets_in_one_folder(tmp_path):
    touch(tmp_path, "Dataset001_A/imagesTr/a_0000.nii.gz", "Dataset002_B/imagesTr/a_0000.nii.gz")
    with pytest.raises(DataError, match=r"several data sets .*Dataset001_A, Dataset002_B"):
        find_data(tmp_path)


def test_a_folder_of_neither(tmp_path):
    with pytest.raises(DataError, match="holds no case_00000"):
        find_data(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        find_data(tmp_path / "absent")


def test_nnunets_cases_are_prepared_as_others_and_found_for_prediction(tmp_path):
    pytest.importorskip("SimpleITK", reason="the extra formats is not installed")
    kits, raw = write_scans(tmp_path / "kits", 2), tmp_path / "raw"
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for number, case in enumerate(kits):
        shutil.copy(case.image_path, raw / "imagesTr" / f"p{number}_0000.nii.gz")
        scan = load_scan(case.image_path)
        save_label(load_label(case.label_path), scan, raw / "labelsTr" / f"p{number}.nrrd")
    run, unused = prepare_run(raw, tmp_path / "run", scan_config())
    assert unused == {}
    assert sorted(case.case_id for case in run.cases()) == ["p0", "p1"]
    for number, case in enumerate(sorted(run.cases(), key=lambda case: case.case_id)):
        alone = prepare_case(kits[number], tmp_path / f"alone{number}", scan_config())
        np.testing.assert_array_equal(case.volume(False), alone.volume(False))
        np.testing.assert_array_equal(case.label(), alone.label())
        assert set(np.unique(case.label())) == {0, 1, 2}
    images = [raw / "imagesTr" / f"p{number}_0000.nii.gz" for number in range(2)]
    assert [job.ct for job in plan([raw], tmp_path / "out")] == images


# Cysts


@pytest.fixture
def cystic(tmp_path):
    """Three cases, one with a cyst."""
    cases = write_scans(tmp_path / "data", 3)
    image = nib.load(cases[0].label_path)
    label = np.asanyarray(image.dataobj).copy()
    label[tuple(np.argwhere(label == 1)[0])] = 3
    nib.save(nib.Nifti1Image(label, image.affine, image.header), cases[0].label_path)
    return tmp_path / "data"


def test_a_cyst_is_kidney_if_that_is_asked_for(cystic):
    path = cystic / "case_00000" / "segmentation.nii.gz"
    np.testing.assert_array_equal(load_label(path, cyst_as_kidney=True), box_scan(0)[1])
    with pytest.raises(DataError, match=r"label values 3, .*cyst in KiTS21.*--cyst-as kidney"):
        load_label(path)


def test_other_values_are_wrong_all_the_same(tmp_path):
    label = box_scan(0)[1]
    label[0, 0, 0] = 4
    path = tmp_path / "segmentation.nii.gz"
    nib.save(nib.Nifti1Image(label, ipl_affine(SPACING_MM)), path)
    for cyst_as_kidney in (False, True):
        with pytest.raises(DataError, match=r"has label values 4, .*; recode it"):
            load_label(path, cyst_as_kidney=cyst_as_kidney)


def test_a_run_remembers_what_a_cyst_is(cystic, tmp_path):
    scan_config().save(tmp_path / "tiny.json")
    arguments = ["prepare", cystic, tmp_path / "run", "--config", tmp_path / "tiny.json"]
    refused = tunet(*arguments)
    assert refused.exit_code == 1
    assert "give --cyst-as kidney" in str(refused.exception)
    taken = tunet(*arguments, "--cyst-as", "kidney")
    assert (taken.exit_code, taken.stderr) == (0, "")
    run = open_run(tmp_path / "run")
    assert run.cyst_as_kidney
    assert sorted(case.case_id for case in run.cases()) == [
        f"case_0000{number}" for number in range(3)
    ]
    assert find_data(run.data, cyst_as_kidney=True).cases[0].cyst_as_kidney


def test_too_few_cases_do_not_hide_why_others_are_missing(cystic, tmp_path):
    shutil.rmtree(cystic / "case_00002")
    with pytest.raises(DataError, match=r"1 of 2 cases .*case_00000: .*--cyst-as"):
        prepare_run(cystic, tmp_path / "run", scan_config())


def test_check_takes_cysts_as_well(cystic):
    faults = [p.what for p in check_folder(cystic)[1] if not p.is_strange_only]
    assert len(faults) == 1
    assert "cyst" in faults[0]
    assert not [p for p in check_folder(cystic, cyst_as_kidney=True)[1] if not p.is_strange_only]


def test_a_run_says_first_what_it_leaves_out_and_stops_before_it_trains(
    cystic, tmp_path, monkeypatch
):
    """neheller/kits23#27: cases with a cyst were dropped, and that was said after the training."""
    from tunet_lib import steps

    monkeypatch.setattr(steps, "train", lambda *_, **__: pytest.fail("it trains"))
    (cystic / "junk").touch()
    scan_config().save(tmp_path / "tiny.json")
    result = tunet("run", cystic, tmp_path / "run", "--config", tmp_path / "tiny.json")
    assert isinstance(result.exception, DataError)
    assert "not used: junk: is no folder" in result.stdout
    assert "1 of 3 cases could not be prepared" in str(result.exception)
    assert "case_00000: " in str(result.exception)


@pytest.mark.parametrize("names", ["imagesTr/k_0000", "labelsTr/k"])
def test_a_case_of_nnunet_in_two_formats_is_refused(tmp_path, names):
    touch(tmp_path, "imagesTr/k_0000.nii.gz", "labelsTr/k.nii.gz", f"{names}.nii")
    with pytest.raises(DataError, match=r"k is also in k.*nii.*; leave one of them"):
        find_data(tmp_path)
