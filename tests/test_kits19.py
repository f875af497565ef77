import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scans import AFFINE, LABEL, VOLUME, VOLUME_MM

from tunet_lib.files import DataError
from tunet_lib.kits19 import Case, find_cases, require_image, require_label, save_case
from tunet_lib.scans import load_label, load_scan


@pytest.fixture
def case(tmp_path):
    return save_case(tmp_path / "case_00007", VOLUME, LABEL, spacing_mm=VOLUME_MM)


# Finding


def test_find_cases_is_sorted_and_knows_what_is_missing(tmp_path):
    save_case(tmp_path / "case_00010", VOLUME, spacing_mm=VOLUME_MM)
    save_case(tmp_path / "case_00002", label=LABEL, spacing_mm=VOLUME_MM)
    (tmp_path / "case_00003").mkdir()
    (tmp_path / "kits.json").write_text("[]")
    image = tmp_path / "case_00010" / "imaging.nii.gz"
    label = tmp_path / "case_00002" / "segmentation.nii.gz"
    assert find_cases(tmp_path) == [
        Case("case_00002", None, label),
        Case("case_00010", image, None),
    ]


def test_folder_without_cases_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}: holds no case"):
        find_cases(tmp_path)


@pytest.mark.parametrize("kind", ["missing", "a file", "unreadable"])
def test_unreadable_folder_is_a_data_error(tmp_path, monkeypatch, kind):
    folder = tmp_path / "data"
    if kind == "a file":
        folder.write_text("")
    if kind == "unreadable":  # chmod does not keep an administrator out

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        folder.mkdir()
        monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="data: cannot be read"):
        find_cases(folder)


def test_missing_files_are_named(tmp_path):
    case = Case("case_00001", None, None)
    with pytest.raises(DataError, match=r"case_00001: has no imaging\.nii\.gz"):
        require_image(case)
    with pytest.raises(DataError, match=r"case_00001: has no segmentation\.nii\.gz"):
        require_label(case)
    full = Case("case_00001", tmp_path / "a", tmp_path / "b")
    assert (require_image(full), require_label(full)) == (tmp_path / "a", tmp_path / "b")


# The layout


def test_saved_case_is_as_in_kits19(case):
    image, label = nib.load(case.image_path), nib.load(case.label_path)
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    for each in (image, label):
        assert nib.aff2axcodes(each.affine) == ("I", "P", "L")
        np.testing.assert_allclose(each.affine, AFFINE, atol=1e-6)
        assert each.header["sform_code"] == 2
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), VOLUME)
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), LABEL)


def test_saved_case_is_reproducible_to_the_byte(case, tmp_path):
    again = save_case(tmp_path / "again" / "case_00007", VOLUME, LABEL, spacing_mm=VOLUME_MM)
    for one, other in ((case.image_path, again.image_path), (case.label_path, again.label_path)):
        assert one.read_bytes() == other.read_bytes()
        assert one.read_bytes()[3:8] == bytes(5)  # neither a name nor a time


def test_a_case_is_where_its_folder_says_and_what_is_not_given_stays(tmp_path):
    folder = tmp_path / "data" / "case_00012"
    image, label = folder / "imaging.nii.gz", folder / "segmentation.nii.gz"
    assert save_case(folder, spacing_mm=VOLUME_MM) == Case("case_00012", None, None)
    assert save_case(folder, VOLUME, spacing_mm=VOLUME_MM) == Case("case_00012", image, None)
    before = image.read_bytes()
    assert save_case(folder, label=LABEL, spacing_mm=VOLUME_MM) == Case("case_00012", image, label)
    assert image.read_bytes() == before


def test_case_comes_back(case):
    scan = load_scan(case.image_path)
    np.testing.assert_array_equal(scan.volume_hu, VOLUME)
    assert scan.volume_hu.dtype == np.int16
    assert scan.spacing_mm == VOLUME_MM
    assert scan.file.shape == VOLUME.shape
    np.testing.assert_array_equal(load_label(case.label_path, scan), LABEL)


def test_kits19_odd_label_files_load_like_the_rest(case, tmp_path):
    """Nine of the 210 are uint16, with a qform only."""
    image = nib.Nifti1Image(LABEL.astype(np.uint16), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "odd.nii.gz")
    odd = nib.load(tmp_path / "odd.nii.gz")
    assert (odd.get_data_dtype(), int(odd.header["sform_code"])) == (np.uint16, 0)
    label = load_label(tmp_path / "odd.nii.gz", load_scan(case.image_path))
    np.testing.assert_array_equal(label, LABEL)
    assert label.dtype == np.uint8


def test_case_160_has_796_columns(tmp_path):
    volume = np.arange(3 * 5 * 796, dtype=np.int16).reshape(3, 5, 796)
    case = save_case(tmp_path / "case_00160", volume, spacing_mm=(2.5, 0.8, 0.8))
    np.testing.assert_array_equal(load_scan(case.image_path).volume_hu, volume)


def test_data_modules_do_not_load_tensorflow():
    code = (
        "import sys, tunet_lib.kits19, tunet_lib.preprocess; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("hu", [40_000.0, -40_000.0, np.nan])
def test_what_fits_into_no_file_is_a_data_error(tmp_path, hu):
    volume_hu = VOLUME.astype(np.float32)
    volume_hu[1, 2, 3] = hu
    with pytest.raises(DataError, match=r"imaging\.nii\.gz: has values that int16"):
        save_case(tmp_path / "case_00000", volume_hu, spacing_mm=VOLUME_MM)
    with pytest.raises(DataError, match=r"segmentation\.nii\.gz: has values that uint8"):
        save_case(tmp_path / "case_00000", label=LABEL + 0.5, spacing_mm=VOLUME_MM)


def test_hu_are_rounded(tmp_path):
    case = save_case(tmp_path / "case_00000", np.full((2, 3, 4), 99.9), spacing_mm=VOLUME_MM)
    assert (load_scan(case.image_path).volume_hu == 100).all()


def test_what_is_no_label_of_kits_is_refused(tmp_path):
    for value in (4, 255, 7.0):
        with pytest.raises(DataError, match="above 3"):
            save_case(tmp_path, None, np.full((3, 4, 5), value), spacing_mm=(3, 1, 1))
    assert not list(tmp_path.rglob("*.gz"))
