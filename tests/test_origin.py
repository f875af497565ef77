"""A case is prepared again when a byte or a number has changed, and not for a touch."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
from scans import SPACING_MM, box_scan, scan_config

from tunet_lib import preprocess
from tunet_lib.files import DataError
from tunet_lib.kits19 import Case, save_case
from tunet_lib.origin import digests_of, origin_of, sources_of
from tunet_lib.preprocess import load_prepared, prepare_case


@pytest.fixture
def case(tmp_path):
    return save_case(tmp_path / "data" / "case_00000", *box_scan(0), spacing_mm=SPACING_MM)


@pytest.fixture
def prepared(case, tmp_path):
    return prepare_case(case, tmp_path / "prepared", scan_config())


def times(prepared):
    return {path.name: path.stat().st_mtime_ns for path in prepared.folder.iterdir()}


def test_a_touch_prepares_nothing_anew(case, prepared, tmp_path):
    before, sources = times(prepared), sources_of(prepared.folder)
    for seconds in (1, 10**9):
        os.utime(case.image_path, (seconds, seconds))
        os.utime(case.label_path, (seconds, seconds))
        again = prepare_case(case, tmp_path / "prepared", scan_config())
        assert again == prepared
        assert times(again) | {"case.json": before["case.json"]} == before
        assert sources_of(again.folder) == sources  # so that its scores are kept
    noted = json.loads((prepared.folder / "case.json").read_text())
    assert noted["made_from"]["imaging.nii.gz"][1] == 10**18
    assert noted["sha256"] == digests_of(case)


def test_what_another_process_has_prepared_meanwhile_is_left_as_it_is(case, tmp_path, monkeypatch):
    """Two starts at once: the other one may train on it already."""
    load, made = preprocess.load_label, []

    def slow(*arguments, **options):
        if not made:
            made.append(None)
            made.append(prepare_case(case, tmp_path / "prepared", scan_config()))
            made.append(times(made[1]))
        return load(*arguments, **options)

    monkeypatch.setattr(preprocess, "load_label", slow)
    prepared = prepare_case(case, tmp_path / "prepared", scan_config())
    assert prepared == made[1]
    assert times(prepared) == made[2]


def test_other_bytes_of_the_same_size_are_prepared(case, prepared, tmp_path):
    before = times(prepared)
    content = bytearray(case.label_path.read_bytes())
    content[4:8] = b"\1\1\1\1"  # gzip's note of a time
    case.label_path.write_bytes(content)
    prepare_case(case, tmp_path / "prepared", scan_config())
    assert times(prepared)["volume.npy"] > before["volume.npy"]


def test_what_an_earlier_version_prepared_is_kept_as_long_as_it_is_not_touched(
    case, prepared, tmp_path
):
    path = prepared.folder / "case.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    path.write_text(json.dumps(values))
    before = times(prepared)
    prepare_case(case, tmp_path / "prepared", scan_config())
    assert times(prepared) == before
    os.utime(case.image_path, (5, 5))
    prepare_case(case, tmp_path / "prepared", scan_config())
    assert times(prepared)["volume.npy"] > before["volume.npy"]


def test_voxels_in_a_file_of_their_own_count(tmp_path):
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "a.hdr")
    case = Case("a", tmp_path / "a.hdr", None)
    before = origin_of(case, scan_config()), digests_of(case)
    nib.save(nib.Nifti1Pair(np.ones((3, 4, 5), np.int16), np.eye(4)), tmp_path / "a.hdr")
    after = origin_of(case, scan_config()), digests_of(case)
    assert set(before[1]) == {"a.hdr", "a.img"}
    assert before[0] != after[0]
    assert before[1]["a.img"] != after[1]["a.img"]


@pytest.mark.parametrize(
    "change",
    [
        *({"case_id": name} for name in ("../case_00000", "case_00001", 3, None)),
        *({"shape": wrong} for wrong in ([], [1, 2], [0, 1, 2], "abc", [1e9] * 3, [None] * 3)),
        *({"spacing_mm": wrong} for wrong in ([0, 1, 1], [-1, 1, 1], [float("nan")] * 3, 3)),
        *({"grid_shape": wrong} for wrong in ([1, 1, 1], [[1], [1], [1]], {})),
        *({"made_from": wrong} for wrong in (None, [], "x")),
    ],
)
def test_a_damaged_description_is_refused_and_the_case_prepared_anew(
    case, prepared, tmp_path, change
):
    path = prepared.folder / "case.json"
    good = path.read_bytes()
    path.write_text(json.dumps(json.loads(good) | change))
    with pytest.raises(DataError, match="prepare it again"):
        load_prepared(tmp_path / "prepared", scan_config())
    assert prepare_case(case, tmp_path / "prepared", scan_config()) == prepared
    assert path.read_bytes() == good


def test_a_ct_and_a_label_map_of_one_name_count_both(case, tmp_path):
    paths = [tmp_path / name / "p.nii.gz" for name in ("ct", "seg")]
    for path, source in zip(paths, (case.image_path, case.label_path), strict=True):
        path.parent.mkdir()
        path.write_bytes(source.read_bytes())
    ours = Case("p", *paths)
    before = origin_of(ours, scan_config()), digests_of(ours)
    paths[0].write_bytes(b"another CT")
    assert all(
        old != new
        for old, new in zip(before, (origin_of(ours, scan_config()), digests_of(ours)), strict=True)
    )
    assert len(digests_of(ours)) == 2
