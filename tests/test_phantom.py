import hashlib
import json

import numpy as np
import pytest
from scipy import ndimage

from tunet_lib.files import DataError
from tunet_lib.kits19 import find_cases, load_label, load_scan
from tunet_lib.phantom import make_phantom, simulate_ct, write_phantoms
from tunet_lib.phantom.scanner import add_noise, blur

CASES = 6


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(np.random.default_rng([7, k])) for k in range(CASES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantoms")
    write_phantoms(path, count=2, seed=5)
    return path


def hashes(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def voxel_ml(spacing_mm):
    return np.prod(spacing_mm) / 1000


def two_kidneys(shape=(40, 96, 96), right=True, left=True):
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    labels = np.zeros(shape, np.uint8)
    for column, wanted in ((28, right), (68, left)):
        if wanted:
            labels[((z - 20) / 13) ** 2 + ((y - 55) / 7) ** 2 + ((x - column) / 8) ** 2 < 1] = 1
    return labels


def test_same_seed_gives_the_same_voxels_and_another_seed_gives_others(phantoms):
    volume_hu, label, spacing_mm = make_phantom(np.random.default_rng([7, 0]))
    assert volume_hu.tobytes() == phantoms[0][0].tobytes()
    assert label.tobytes() == phantoms[0][1].tobytes()
    assert spacing_mm == phantoms[0][2]
    assert (label != phantoms[1][1]).any()


def test_shape_type_and_range(phantoms):
    for volume_hu, label, spacing_mm in phantoms:
        assert volume_hu.shape == label.shape == (64, 128, 128)
        assert volume_hu.dtype == np.int16
        assert label.dtype == np.uint8
        assert volume_hu.min() >= -1024
        extent = np.array(spacing_mm) * label.shape
        assert 180 <= extent[0] <= 336
        assert 320 <= extent[1] == extent[2] <= 432


def test_every_case_has_two_kidneys_and_a_tumor_of_1_to_10_cm(phantoms):
    for _, label, spacing_mm in phantoms:
        assert set(np.unique(label)) == {0, 1, 2}
        whole, _ = ndimage.label(label > 0)
        volumes_ml = np.sort(np.bincount(whole.ravel())[1:])[::-1] * voxel_ml(spacing_mm)
        assert (volumes_ml[:2] > 60).all()
        assert volumes_ml[:2].sum() > 0.97 * volumes_ml.sum()
        assert 190 < volumes_ml.sum() < 1962
        tumors, _ = ndimage.label(label == 2)
        largest_ml = np.bincount(tumors.ravel())[1:].max() * voxel_ml(spacing_mm)
        assert 0.9 < (6000 * largest_ml / np.pi) ** (1 / 3) / 10 < 10.5


def test_kidneys_lie_on_both_sides_and_the_liver_on_the_patients_right(phantoms):
    right_minus_left = 0
    for volume_hu, label, _ in phantoms:
        columns = np.nonzero(label == 1)[2]
        assert (columns < 64).mean() > 0.2
        assert (columns >= 64).mean() > 0.2
        soft = (label == 0) & (volume_hu > 60) & (volume_hu < 180)
        right_minus_left += int(soft[:24, :, :58].sum()) - int(soft[:24, :, 70:].sum())
    assert right_minus_left > 0


def test_intensities_are_those_of_kits19(phantoms):
    kidney = np.concatenate([v[lab == 1] for v, lab, _ in phantoms]).astype(float)
    tumor = np.concatenate([v[lab == 2] for v, lab, _ in phantoms]).astype(float)
    assert kidney.mean() == pytest.approx(114, abs=25)
    assert kidney.std() == pytest.approx(60, abs=20)
    assert tumor.mean() == pytest.approx(58, abs=25)
    assert tumor.std() == pytest.approx(43, abs=15)
    for volume_hu, label, _ in phantoms:
        values = ndimage.uniform_filter(volume_hu.astype(float), 3)
        assert np.median(values[:, 0, 0]) < -850  # air
        around = ndimage.binary_dilation(label > 0, iterations=1) & (label == 0)
        assert volume_hu[around].mean() < 40 < volume_hu[label == 1].mean()
        assert ((values > 250) & (label == 0)).any()  # bone


def test_look_alikes_exist_outside_the_kidneys(phantoms):
    for volume_hu, label, _ in phantoms:
        smooth = ndimage.uniform_filter(volume_hu.astype(float), 3)
        outside = ndimage.binary_dilation(label > 0, iterations=2) == 0
        for value in (1, 2):
            low, high = np.percentile(smooth[label == value], (25, 75))
            alike = outside & (smooth > low) & (smooth < high)
            assert alike.sum() > (label == value).sum() * 0.5


def test_phantom_fits_a_given_shape_and_spacing():
    volume_hu, label, spacing_mm = make_phantom(np.random.default_rng(1), (50, 80, 90), (5, 4, 4))
    assert volume_hu.shape == label.shape == (50, 80, 90)
    assert spacing_mm == (5, 4, 4)
    assert set(np.unique(label)) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_the_sd_and_the_correlation_of_a_real_scan(seed):
    noise = add_noise(
        np.zeros((40, 100, 100), np.float32), (3, 0.8, 0.8), np.random.default_rng(seed)
    ).astype(float)
    assert 18.5 < noise.std() < 26.5
    for axis, expected in enumerate((0.25, 0.4, 0.5)):
        a, b = (np.take(noise, range(s, noise.shape[axis] - 1 + s), axis) for s in (0, 1))
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(expected, abs=0.02)


def test_blur_keeps_a_constant_and_spreads_one_voxel_to_its_neighbors():
    constant = np.full((5, 6, 7), -97, np.float32)
    blur(constant)
    np.testing.assert_allclose(constant, -97, rtol=1e-6)
    point = np.zeros((5, 5, 5), np.float32)
    point[2, 2, 2] = 1.4**3
    blur(point)
    assert point[2, 2, 2] == pytest.approx(1)
    assert point[2, 2, 3] == point[1, 2, 2] == pytest.approx(0.2)
    assert point[1, 1, 1] == pytest.approx(0.008)
    assert point.sum() == pytest.approx(1.4**3)


@pytest.mark.parametrize(
    ("right", "left"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_simulated_ct_follows_the_labels(right, left):
    labels = two_kidneys(right=right, left=left)
    before = labels.copy()
    volume_hu = simulate_ct(labels, (5, 4, 4), np.random.default_rng(3))
    assert volume_hu.shape == labels.shape
    assert volume_hu.dtype == np.int16
    assert (labels == before).all()
    assert 0.1 < (volume_hu > -200).mean() < 0.9  # a body in air
    if labels.any():
        near = ndimage.binary_dilation(labels > 0) & (labels == 0)
        assert volume_hu[labels == 1].mean() > volume_hu[near].mean() + 40


def test_simulated_ct_is_reproducible_and_depends_on_the_seed():
    labels = two_kidneys()
    first, again, other = (
        simulate_ct(labels, (5, 4, 4), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.tobytes() == again.tobytes()
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize("value", [1, 2])
def test_simulated_ct_copes_with_odd_labels(value):
    touching = np.zeros((20, 48, 48), np.uint8)
    touching[5:15, 20:30, 8:40] = value  # one piece from side to side
    speck = np.zeros((20, 48, 48), np.uint8)
    speck[19, 47, 47] = value
    for labels in (touching, speck):
        volume_hu = simulate_ct(labels, (8, 8, 8), np.random.default_rng(0))
        assert volume_hu[labels > 0].mean() > -60


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
        assert 0.8 < entry["radiographic_size"] < 13
        assert entry["voxel_spacing"]["z_spacing"] == pytest.approx(scan.spacing_mm[0], abs=1e-4)


def test_writing_resumes_and_keeps_finished_cases(tmp_path, folder):
    seen = []
    write_phantoms(tmp_path, count=1, seed=5)
    first = tmp_path / "case_00000" / "imaging.nii.gz"
    changed = first.stat().st_mtime_ns
    cases = write_phantoms(tmp_path, 2, 5, progress=lambda done, count: seen.append((done, count)))
    assert first.stat().st_mtime_ns == changed
    assert seen == [(1, 2), (2, 2)]
    assert len(cases) == 2
    (tmp_path / "case_00001" / "segmentation.nii.gz").unlink()
    write_phantoms(tmp_path, 2, 5)
    assert hashes(tmp_path) == hashes(folder)


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
    with pytest.raises(DataError, match="seed 6"):
        write_phantoms(folder, 1, seed=6)
