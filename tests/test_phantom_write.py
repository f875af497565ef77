import hashlib
import json
import shutil

import numpy as np
import pytest

from tunet_lib.files import DataError
from tunet_lib.kits19 import find_cases
from tunet_lib.phantom import make_phantom, write_phantoms
from tunet_lib.phantom.kidneys import Traits
from tunet_lib.phantom.write import GENERATOR, _draw_size
from tunet_lib.scans import load_label, load_scan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantoms")
    write_phantoms(path, count=2, seed=5)
    return path


def hashes(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_files_are_the_same_byte_for_byte(folder, tmp_path):
    write_phantoms(tmp_path, count=2, seed=5)
    assert hashes(tmp_path) == hashes(folder)


def test_layout_is_that_of_kits19(folder):
    cases = find_cases(folder)
    entries = json.loads((folder / "kits.json").read_text())
    assert [case.case_id for case in cases] == ["case_00000", "case_00001"]
    for case, entry in zip(cases, entries, strict=True):
        scan = load_scan(case.image_path)
        label = load_label(case.label_path, scan)
        assert 52 <= label.shape[0] <= 72
        assert label.shape[1:] == (128, 128)
        assert entry["case_id"] == case.case_id
        assert entry["synthetic"] is True
        assert entry["generator"] == GENERATOR == 2
        assert entry["looks"] == "portal"
        assert 0.8 < entry["radiographic_size"] < 13
        assert entry["voxel_spacing"]["z_spacing"] == pytest.approx(scan.spacing_mm[0], abs=1e-4)


def test_a_folder_that_is_complete_is_only_read(folder, monkeypatch):
    # A class may share one that its students cannot write to.
    monkeypatch.setattr("tunet_lib.phantom.write.save_json", None)
    assert [case.case_id for case in write_phantoms(folder, 2, 5)] == ["case_00000", "case_00001"]


def test_writing_resumes_and_keeps_finished_cases(tmp_path, monkeypatch):
    # A phantom of a fraction of the voxels takes a fraction of the time.
    monkeypatch.setattr("tunet_lib.phantom.write._draw_size", lambda *_: ((20, 48, 48), None))
    at_once, in_parts = tmp_path / "at once", tmp_path / "in parts"
    write_phantoms(at_once, count=2, seed=5)
    seen = []
    write_phantoms(in_parts, count=1, seed=5)
    first = in_parts / "case_00000" / "imaging.nii.gz"
    changed = first.stat().st_mtime_ns
    cases = write_phantoms(in_parts, 2, 5, progress=lambda done, count: seen.append((done, count)))
    assert first.stat().st_mtime_ns == changed
    assert seen == [(1, 2), (2, 2)]
    assert len(cases) == 2
    assert hashes(in_parts) == hashes(at_once)
    (in_parts / "case_00001" / "segmentation.nii.gz").unlink()
    write_phantoms(in_parts, 2, 5)
    assert hashes(in_parts) == hashes(at_once)


@pytest.mark.parametrize("entries", [None, [{"case_id": "case_00000"}]])
def test_other_peoples_cases_are_never_overwritten(tmp_path, entries):
    image = tmp_path / "case_00000" / "imaging.nii.gz"
    image.parent.mkdir()
    image.write_bytes(b"a real CT")
    if entries:
        (tmp_path / "kits.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match="holds"):
        write_phantoms(tmp_path, 1)
    assert image.read_bytes() == b"a real CT"


def test_a_folder_of_another_seed_is_refused(folder):
    with pytest.raises(DataError, match="seed 6, size course, looks portal; choose an empty"):
        write_phantoms(folder, 1, seed=6)


def test_a_folder_of_other_looks_is_refused(folder):
    with pytest.raises(DataError, match="looks wide"):
        write_phantoms(folder, 1, seed=5, looks="wide")


def test_wide_phantoms_are_written_also_without_a_tumor(tmp_path, monkeypatch):
    monkeypatch.setattr("tunet_lib.phantom.write._draw_size", lambda *_: ((20, 48, 48), None))
    traits = Traits(tumors=0)
    monkeypatch.setattr("tunet_lib.phantom.wide.draw_traits", lambda rng: traits)
    write_phantoms(tmp_path / "first", 2, looks="wide")
    for entry in json.loads((tmp_path / "first" / "kits.json").read_text()):
        assert entry["looks"] == "wide"
        assert entry["radiographic_size"] == 0.0
    write_phantoms(tmp_path / "again", 1, looks="wide")
    write_phantoms(tmp_path / "again", 2, looks="wide")
    assert hashes(tmp_path / "again") == hashes(tmp_path / "first")


@pytest.mark.parametrize(("looks", "low", "high"), [("portal", 52, 72), ("wide", 40, 100)])
def test_a_phantom_for_the_course_has_so_many_slices(looks, low, high):
    rng = np.random.default_rng(0)
    counts = {_draw_size("course", looks, rng)[0][0] for _ in range(900)}
    assert (min(counts), max(counts)) == (low, high)


def test_phantoms_that_name_no_generator_are_of_the_first_and_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    entries = json.loads((folder / "kits.json").read_text())
    for entry in entries:
        del entry["generator"], entry["looks"]
    (tmp_path / "kits.json").write_text(json.dumps(entries))
    before = hashes(tmp_path)
    with pytest.raises(DataError, match="version 1 of the generator"):
        write_phantoms(tmp_path, 2, seed=5)
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("version", [0, GENERATOR + 1])
def test_phantoms_of_another_generator_are_refused_and_kept(folder, tmp_path, version):
    entries = json.loads((folder / "kits.json").read_text())
    entries[0]["generator"] = version  # one is enough
    (tmp_path / "kits.json").write_text(json.dumps(entries))
    before = hashes(tmp_path)
    with pytest.raises(DataError, match=f"version {version} of the generator.* delete this one"):
        write_phantoms(tmp_path, 2, seed=5)
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("wrong", [{"size": "small"}, {"looks": "Wide"}, {"seed": -1}])
def test_what_there_is_not_is_refused_before_anything_is_written(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is "):
        write_phantoms(tmp_path / "new", 1, **wrong)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="looks is 'Portal'; choose one of portal, wide"):
        make_phantom(np.random.default_rng(0), looks="Portal")


def test_somebody_elses_case_among_phantoms_is_kept(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "phantoms")
    count = len(list(folder.glob("case_*")))
    own = tmp_path / "phantoms" / f"case_{count:05d}" / "imaging.nii.gz"
    own.parent.mkdir()
    own.write_bytes(b"somebody else's")
    with pytest.raises(DataError, match=f"case_{count:05d}: is no phantom; move it away"):
        write_phantoms(tmp_path / "phantoms", count + 1, seed=5)
    assert own.read_bytes() == b"somebody else's"
