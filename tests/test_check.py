import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from tunet_lib import check as check_module
from tunet_lib import cli
from tunet_lib.check import Problem, check_folder
from tunet_lib.files import DataError, sha256_of
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME, save_case

# A body in air, as large as one.
SHAPE, SPACING_MM = (24, 30, 32), (5.0, 10.0, 10.0)


def body():
    volume_hu = np.full(SHAPE, -1000, np.int16)
    volume_hu[:, 4:-4, 4:-4] = 40
    return volume_hu


def write(folder, number, volume_hu=None, label_shape=SHAPE):
    volume_hu = body() if volume_hu is None else volume_hu
    label = np.zeros(label_shape, np.uint8)
    label[10:14, 12:16, 8:12], label[11, 12, 9] = 1, 2
    return save_case(folder / f"case_{number:05d}", volume_hu, label, spacing_mm=SPACING_MM)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    for number in range(7):
        write(folder, number)
    return folder


@pytest.fixture
def data(written, tmp_path):
    return shutil.copytree(written, tmp_path / "data")


def spoil(data):
    """Give what is wrong with cases 1 to 6, having made it so."""
    affine = nib.load(data / "case_00006" / IMAGE_NAME).affine
    image = data / "case_00001" / IMAGE_NAME
    image.write_bytes(image.read_bytes()[:-20])
    (data / "case_00002" / LABEL_NAME).write_text("<html>sign in</html>")
    (data / "case_00003" / IMAGE_NAME).unlink()
    write(data, 4, label_shape=(24, 30, 33))
    wrong = nib.Nifti1Image(np.full(SHAPE, 3, np.uint8), affine)
    (data / "case_00005" / LABEL_NAME).write_bytes(gzip.compress(wrong.to_bytes()))
    bad = np.full(SHAPE, np.nan, np.float32)
    (data / "case_00006" / IMAGE_NAME).write_bytes(
        gzip.compress(nib.Nifti1Image(bad, affine).to_bytes())
    )
    return [
        ("case_00001", IMAGE_NAME, "cut short"),
        ("case_00002", LABEL_NAME, "a web page"),
        ("case_00003", IMAGE_NAME, "is missing"),
        ("case_00004", LABEL_NAME, "has shape (24, 30, 33)"),
        ("case_00005", LABEL_NAME, "has label values 3"),
        ("case_00006", IMAGE_NAME, "NaN"),
    ]


def test_a_good_folder(data):
    seen = []
    assert check_folder(data, on_case=seen.append) == (7, [])
    assert seen == [f"case_{number:05d}" for number in range(7)]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_fault_is_found_and_named(data, workers):
    expected = spoil(data)
    count, problems = check_folder(data, workers=workers)
    assert count == 7
    assert [(p.case_id, p.file) for p in problems] == [(case, file) for case, file, _ in expected]
    for problem, (_, _, what) in zip(problems, expected, strict=True):
        assert what in problem.what
        assert str(data) not in problem.what.split(";")[0].split("CT")[0]


def test_labels_only(data):
    (data / "case_00003" / IMAGE_NAME).unlink()
    assert check_folder(data, labels_only=True) == (7, [])


def test_published_label_maps_must_be_as_published(data, monkeypatch):
    paths = {f"case_{n:05d}": data / f"case_{n:05d}" / LABEL_NAME for n in range(7)}
    digests = {case_id: (sha256_of(path), 1) for case_id, path in paths.items()}
    digests["case_00004"] = ("0" * 64, 1)
    monkeypatch.setattr(check_module, "label_digests", lambda: digests)
    assert check_folder(data) == (7, [])  # without kits.json it may be anybody's data
    (data / "kits.json").write_text(json.dumps([{"case_id": "case_00000"}]))
    paths["case_00006"].unlink()
    assert check_folder(data)[1] == [
        Problem("case_00004", LABEL_NAME, "is not the label map that KiTS19 published (SHA-256)"),
        Problem("case_00006", LABEL_NAME, "is missing"),
    ]
    (data / "kits.json").write_text(json.dumps([{"case_id": "case_00000", "synthetic": True}]))
    assert check_folder(data) == (7, [])


def test_a_folder_without_cases(tmp_path):
    with pytest.raises(DataError, match="holds no case_00000"):
        check_folder(tmp_path)


def test_what_is_strange_is_listed_and_no_fault(data):
    write(data, 1, body() + 1024)
    touching = np.zeros(SHAPE, np.uint8)
    touching[:4, 12:16, 8:12] = 1
    save_case(data / "case_00002", label=touching, spacing_mm=SPACING_MM)
    save_case(data / "case_00003", label=np.zeros(SHAPE, np.uint8), spacing_mm=SPACING_MM)
    write(data, 4, (body() + 1000) / 5)
    strange = [
        ("case_00001", IMAGE_NAME, "HU + 1024; 1024 is subtracted"),
        ("case_00002", LABEL_NAME, "reach the border of the CT (first slice (head))"),
        ("case_00003", LABEL_NAME, "no kidney was found"),
    ]
    (*notes, fault) = check_folder(data)[1]
    assert [(p.case_id, p.file) for p in notes] == [row[:2] for row in strange]
    for problem, (_, _, what) in zip(notes, strange, strict=True):
        assert problem.is_strange_only
        assert what in problem.what
    assert fault == Problem("case_00004", IMAGE_NAME, fault.what)
    assert "holds no HU: values from 0 to 208" in fault.what
    (data / "case_00004" / IMAGE_NAME).unlink()
    shown = CliRunner().invoke(cli.app, ["check", str(data), "--labels-only", "--workers", "1"])
    assert shown.exit_code == 0
    assert "no kidney" in shown.output
    assert "7 cases, and every file is good" in shown.output


def test_the_command_lists_what_is_wrong(data):
    good = CliRunner().invoke(cli.app, ["check", str(data), "--workers", "1"])
    assert good.exit_code == 0
    assert "7 cases, and every file is good" in good.output
    spoil(data)
    bad = CliRunner().invoke(cli.app, ["check", str(data), "--workers", "1"])
    assert bad.exit_code == 1
    assert all(f"case_0000{number}" in bad.output for number in range(1, 7))
    assert "6 of 7 cases have problems" in bad.output
