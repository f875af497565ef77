import math
from collections import Counter

import numpy as np
import pytest

from tunet_lib.phantom import make_phantom
from tunet_lib.phantom.kidneys import Traits
from tunet_lib.phantom.wide import (
    Pose,
    Scanner,
    draw_body,
    draw_enhancement,
    draw_spacing,
    draw_traits,
)

SHAPE = (30, 48, 48)
PLAIN = {"noise_reach": 1.0, "blur_sd": (0.0, 0.0), "sharpness": 0.0, "is_round": False}


def draws(draw, count):
    return [draw(np.random.default_rng([9, k])) for k in range(count)]


@pytest.fixture(scope="module")
def phantoms():
    return draws(lambda rng: make_phantom(rng, SHAPE, looks="wide"), 40)


def test_same_seed_gives_the_same_voxels(phantoms):
    volume_hu, label, spacing_mm = make_phantom(np.random.default_rng([9, 0]), SHAPE, looks="wide")
    assert volume_hu.tobytes() == phantoms[0][0].tobytes()
    assert label.tobytes() == phantoms[0][1].tobytes()
    assert spacing_mm == phantoms[0][2]


def test_the_usual_looks_are_those_of_kits19():
    usual, named = (
        make_phantom(np.random.default_rng(3), SHAPE, **looks)
        for looks in ({}, {"looks": "portal"})
    )
    assert usual[0].tobytes() == named[0].tobytes()
    assert usual[1].tobytes() == named[1].tobytes()
    assert usual[2] == named[2]


@pytest.mark.parametrize("looks", ["portal", "wide"])
def test_a_voxel_size_may_be_an_array(looks):
    given = np.array([6.0, 3.0, 3.0])
    *_, spacing_mm = make_phantom(np.random.default_rng(3), SHAPE, given, looks=looks)
    assert spacing_mm == (6, 3, 3)
    assert [type(mm) for mm in spacing_mm] == [float] * 3


def test_labels_are_valid(phantoms):
    for volume_hu, label, _ in phantoms:
        assert volume_hu.shape == label.shape == SHAPE
        assert (volume_hu.dtype, label.dtype) == (np.int16, np.uint8)
        assert volume_hu.min() >= -1024
        assert set(np.unique(label)) <= {0, 1, 2}
    assert 0.6 < np.mean([(label == 2).any() for _, label, _ in phantoms]) < 0.95
    assert np.mean([(label == 1).any() for _, label, _ in phantoms]) > 0.9


def test_looks_differ_widely(phantoms):
    kidney = [volume[label == 1].mean() for volume, label, _ in phantoms if (label == 1).any()]
    assert min(kidney) < 50
    assert max(kidney) > 180
    contrast = [
        volume[label == 2].mean() - volume[label == 1].mean()
        for volume, label, _ in phantoms
        if (label == 1).any() and (label == 2).sum() > 20
    ]
    assert min(contrast) < -70
    assert max(contrast) > 15
    bodies = [(volume > -300).mean() for volume, _, _ in phantoms]
    assert min(bodies) < 0.3
    assert max(bodies) > 0.6


def test_voxels_slices_and_fields_of_view():
    def draw(rng):
        shape = (int(rng.integers(40, 101)), 128, 128)
        return np.multiply(draw_spacing(draw_body(rng), shape, rng), (1, *shape[1:])), shape[0]

    slices, fovs = zip(*[(s[0], s[1]) for s, _ in draws(draw, 200)], strict=True)
    assert 0.5 <= min(slices) < 1 < 4.9 < max(slices) <= 5
    assert 249.9 < min(fovs) < 280
    assert 460 < max(fovs) <= 500.1
    heights = [s[0] * count for s, count in draws(draw, 200)]
    assert min(heights) < 100
    assert 400 < max(heights) <= 500.1


def test_contrast_phases():
    phases = draws(draw_enhancement, 400)
    cortex, aorta, urine = (
        np.array([getattr(phase, name) for phase in phases])
        for name in ("cortex", "aorta", "urine")
    )
    plain = urine + np.abs(aorta - 42) < 30
    assert 0.2 < plain.mean() < 0.3
    assert cortex[plain].mean() == pytest.approx(35, abs=4)
    assert np.percentile(cortex, 95) > 200
    assert aorta.max() > 300
    assert 0.1 < (urine > 200).mean() < 0.4  # excretory
    mean = (cortex + [phase.medulla for phase in phases]) / 2
    contrast = np.array([phase.tumor for phase in phases]) - mean
    assert (contrast < -60).mean() > 0.1
    assert (contrast > 10).mean() > 0.1


def test_how_many_have_kidneys_and_tumors():
    traits = draws(draw_traits, 3000)
    kidneys = Counter(len(t.sides) for t in traits)
    assert kidneys[0] / 3000 == pytest.approx(0.03, abs=0.01)
    assert kidneys[1] / 3000 == pytest.approx(0.1, abs=0.02)
    without = np.mean([t.tumors == 0 or not t.sides for t in traits])
    assert without == pytest.approx(0.25, abs=0.025)
    assert np.mean([t.tumors > 1 for t in traits]) == pytest.approx(0.4 * 0.773, abs=0.03)
    scales = [t.scale for t in traits]
    assert 0.6 <= min(scales) < 0.62 < 1.38 < max(scales) <= 1.4


@pytest.mark.parametrize("sides", [(), (-1,), (1,), (-1, 1)])
def test_kidneys_and_tumors_are_as_many_as_drawn(monkeypatch, sides):
    pose = Pose(0, (0, 0), 0)
    monkeypatch.setattr("tunet_lib.phantom.wide.Pose.draw", lambda rng: pose)
    monkeypatch.setattr(
        "tunet_lib.phantom.wide.draw_traits", lambda rng: Traits(sides=sides, tumors=0)
    )
    _, label, _ = make_phantom(np.random.default_rng(1), SHAPE, (8, 8, 8), looks="wide")
    assert set(np.unique(label)) == ({0, 1} if sides else {0})
    assert (label[:, :, :24].any(), label[:, :, 24:].any()) == (-1 in sides, 1 in sides)


def test_patients_differ_in_fat():
    bodies = draws(draw_body, 200)
    assert min(body.fat for body in bodies) < 6 < 24 < max(body.fat for body in bodies)
    lean = [body.tissue.lean for body in bodies]
    assert min(lean) < -2.5 < 0.7 < max(lean)


def test_scanners_differ_in_noise_and_sharpness():
    scanners = draws(Scanner.draw, 300)
    noise = [scanner.noise_sd_hu for scanner in scanners]
    assert 4 <= min(noise) < 4.5 < 40 < max(noise) <= 45
    assert max(scanner.blur_sd[1] for scanner in scanners) > 1.4
    assert 0.25 < np.mean([scanner.sharpness > 0 for scanner in scanners]) < 0.45


def place(pose, painted, shape):
    label = np.zeros(painted.shape, np.uint8)
    label[painted > 0] = 1
    return pose.place((painted, label), shape, np.random.default_rng(0), spacing_mm=(3, 2, 2))


def test_a_pose_cuts_the_middle_turns_and_keeps_a_constant():
    painted = np.random.default_rng(0).normal(0, 50, (3, 14, 16)).astype(np.float32)
    middle = painted[:, 2:-2, 2:-2]
    for turn, expected in ((0, middle), (180, middle[:, ::-1, ::-1])):
        hu, label = place(Pose(turn, (0, 0), 0), painted, (3, 10, 12))
        assert (hu.dtype, label.dtype) == (np.float32, np.uint8)
        np.testing.assert_allclose(hu, expected, atol=1e-2)
        np.testing.assert_array_equal(label, expected > 0)
    square = painted[:, :, :14]
    hu, _ = place(Pose(90, (0, 0), 0), square, (3, 10, 10))
    np.testing.assert_allclose(hu, np.rot90(square[:, 2:-2, 2:-2], 1, (2, 1)), atol=1e-2)
    shifted, _ = place(Pose(0, (4, -2), 0), painted, (3, 10, 12))  # 2 voxels down, 1 to the left
    np.testing.assert_allclose(shifted, painted[:, 4:, 1:-3], atol=1e-2)
    constant, _ = place(Pose(13, (5, 5), 6), np.full((3, 14, 16), -97, np.float32), (3, 10, 12))
    np.testing.assert_allclose(constant, -97, rtol=1e-6)


@pytest.mark.parametrize("extra", [{}, {"blur_sd": (0.7, 1.5)}, {"sharpness": 1.0}])
def test_a_scanner_keeps_a_constant_but_for_gain_shift_and_noise(extra):
    scanner = Scanner(noise_sd_hu=10, gain=1.05, shift_hu=-5, drift_hu=0, **(PLAIN | extra))
    label = np.ones((40, 60, 60), np.uint8)
    hu = np.full(label.shape, 100, np.float32)
    out = scanner.scan(hu, label, np.random.default_rng(1), spacing_mm=(3, 0.8, 0.8))
    assert out.mean() == pytest.approx(100, abs=0.5)
    assert out.std() == pytest.approx(10, rel=0.03)
    assert (hu == 100).all()
    assert label.all()


def test_drift_and_a_round_field_of_view():
    scanner = Scanner(noise_sd_hu=1e-3, gain=1, shift_hu=0, drift_hu=6, **(PLAIN | {"is_round": 1}))
    label = np.ones((40, 60, 60), np.uint8)
    out = scanner.scan(
        np.zeros(label.shape, np.float32), label, np.random.default_rng(1), spacing_mm=(5, 5, 5)
    )
    assert ((out == -1024) == (label == 0)).all()
    assert label.mean() == pytest.approx(math.pi / 4, abs=0.01)
    assert 2 < out[label == 1].std() < 8
