import numpy as np
import pytest
from scipy import ndimage

from tunet_lib.phantom import make, make_phantom, simulate_ct
from tunet_lib.phantom.canvas import Canvas
from tunet_lib.phantom.kidneys import draw_cysts

CASES = 6


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(np.random.default_rng([7, k])) for k in range(CASES)]


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


def test_organs_have_the_hu_of_kidneys_and_tumors(phantoms):
    for volume_hu, label, _ in phantoms:
        smooth = ndimage.uniform_filter(volume_hu.astype(float), 3)
        outside = ndimage.binary_dilation(label > 0, iterations=2) == 0
        for value in (1, 2):
            low, high = np.percentile(smooth[label == value], (25, 75))
            alike = outside & (smooth > low) & (smooth < high)
            assert alike.sum() > (label == value).sum() * 0.5


def test_look_alikes_lie_outside_the_kidneys_and_have_a_tumors_hu(phantoms, monkeypatch):
    paint_look_alikes = make.paint_look_alikes

    def paint_and_wipe_off(canvas, patient, rng):  # so that all else is drawn as it was
        before = canvas.hu.copy()
        paint_look_alikes(canvas, patient, rng)
        canvas.hu[:] = before

    monkeypatch.setattr(make, "paint_look_alikes", paint_and_wipe_off)
    values = []
    for seed, (volume_hu, label, spacing_mm) in enumerate(phantoms[:3]):
        without_hu, same, _ = make_phantom(np.random.default_rng([7, seed]))
        np.testing.assert_array_equal(same, label)
        changed = np.abs(volume_hu.astype(int) - without_hu) > 50
        assert changed.sum() * voxel_ml(spacing_mm) > 2
        assert (changed & (label > 0)).sum() < 0.01 * changed.sum()
        values.append(volume_hu[changed])
    # Tumors of KiTS19 have 58 HU, with an SD of 43.
    assert np.median(np.concatenate(values)) == pytest.approx(58, abs=43)


def test_of_a_given_label_map_some_kidneys_hold_cysts():
    labels = two_kidneys()
    canvas = Canvas(np.random.default_rng(0), labels.shape, (5, 4, 4), origin_mm=(100, 200, 190))
    found = [draw_cysts(labels, canvas, np.random.default_rng(seed)) for seed in range(300)]
    shares = np.bincount([len(cysts) for cysts in found], minlength=4) / len(found)
    np.testing.assert_allclose(shares, [0.6, 0.25, 0, 0.15], atol=0.08)
    for center, radius in (cyst for cysts in found for cyst in cysts):
        place = [np.argmin(np.abs(a - c)) for a, c in zip(canvas.axes, center, strict=True)]
        assert labels[tuple(place)] == 1
        assert 3 <= radius <= 14
    assert draw_cysts(0 * labels, canvas, np.random.default_rng(0)) == []


def test_a_simulated_cyst_is_fluid(monkeypatch):
    labels = two_kidneys()

    def one_cyst(labels, canvas, rng):
        return [(tuple(float(a[i]) for a, i in zip(canvas.axes, (20, 55, 28), strict=True)), 14)]

    monkeypatch.setattr(make, "draw_cysts", one_cyst)
    volume_hu = simulate_ct(labels, (5, 4, 4), np.random.default_rng(3))
    cyst, other = (volume_hu[19:22, 54:57, x - 1 : x + 2].mean() for x in (28, 68))
    assert cyst == pytest.approx(10, abs=20)
    assert other > cyst + 25


def test_phantom_fits_a_given_shape_and_spacing():
    volume_hu, label, spacing_mm = make_phantom(np.random.default_rng(1), (50, 80, 90), (5, 4, 4))
    assert volume_hu.shape == label.shape == (50, 80, 90)
    assert spacing_mm == (5, 4, 4)
    assert set(np.unique(label)) == {0, 1, 2}


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
    labels = two_kidneys()[::2, ::2, ::2]
    first, again, other = (
        simulate_ct(labels, (10, 8, 8), np.random.default_rng(seed)) for seed in (1, 1, 2)
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
