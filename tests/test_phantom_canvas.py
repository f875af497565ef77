import numpy as np
import pytest

from tunet_lib.phantom.canvas import Canvas, SmoothField, Texture, interpolate

FLAT = Texture(50, 0)


@pytest.fixture
def canvas():
    """20 x 30 x 40 mm of air, and a cavity on its left half."""
    canvas = Canvas(np.random.default_rng(0), (10, 30, 20), (2, 1, 2), origin_mm=(10, 15, 20))
    canvas.cavity[:, :, 10:] = True
    return canvas


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("axis", range(3))
def test_a_constant_is_interpolated_to_itself(axis, smooth):
    constant = np.full((3, 4, 5), -97, np.float32)
    out = interpolate(constant, np.linspace(0, 9, 7), axis, smooth=smooth)
    assert out.shape == (*constant.shape[:axis], 7, *constant.shape[axis + 1 :])
    assert (out == -97).all()


def test_interpolation_is_linear_or_has_rounded_corners():
    values = np.array([0, 8, 16], np.float32).reshape(3, 1, 1)
    position = np.array([0, 0.25, 0.5, 1, 1.75, 2, 5])
    linear = interpolate(values, position, 0).ravel()
    smooth = interpolate(values, position, 0, smooth=True).ravel()
    assert linear.tolist() == [0, 2, 4, 8, 14, 16, 16]
    assert smooth.tolist() == [0, 1.25, 4, 8, 14.75, 16, 16]


def test_a_random_field_has_mean_0_and_sd_1_and_is_the_same_in_any_box():
    field = SmoothField(np.random.default_rng(1), (60, 60, 60), (0.3, 0.4, 0.5))
    whole = field.at((slice(0, 60),) * 3)
    assert whole.mean() == pytest.approx(0, abs=0.1)
    assert whole.std() == pytest.approx(1, abs=0.1)
    box = (slice(7, 9), slice(0, 60), slice(31, 50))
    assert field.at(box).tobytes() == whole[box].tobytes()


@pytest.mark.parametrize(
    ("shape", "arguments", "volume_mm3"),
    [
        ("ellipsoid", {"center": (0, 1, 2), "radii": (15, 9, 6), "cavity": False}, 1080),
        (
            "ellipsoid",
            {"center": (0, 1, 2), "radii": (5, 15, 9), "turn_deg": 30, "cavity": False},
            900,
        ),
        ("column", {"center": (1.1, 2.3), "radii": (9, 6), "z_range": (-5, 5)}, 540),
        ("column", {"center": (1.1, 2.3), "radii": (9, 6)}, 2160),
        ("tube", {"points": [(0.1, 0.2, -8), (0.1, 0.2, 8)], "radius": 6}, 864),
        ("tube", {"points": [(0.1, 0.2, -9), (0.1, 0.2, 9)], "radius": (6, 3)}, 540),
    ],
)
def test_each_shape_has_the_volume_that_geometry_gives(shape, arguments, volume_mm3):
    canvas = Canvas(np.random.default_rng(0), (80, 80, 80), (0.5, 0.5, 0.5), origin_mm=(20, 20, 20))
    getattr(canvas, shape)(**arguments, texture=FLAT)
    assert set(np.unique(canvas.hu)) == {-1000, 50}
    assert (canvas.hu == 50).sum() / 8 == pytest.approx(np.pi * volume_mm3, rel=0.01)


def test_organs_stay_in_the_cavity(canvas):
    for paint in (
        lambda cavity: canvas.ellipsoid((0, 0, 0), (8, 8, 8), FLAT, cavity=cavity),
        lambda cavity: canvas.tube([(0, 0, -9), (0, 0, 9)], 5, FLAT, cavity=cavity),
    ):
        canvas.hu[:] = -1000
        paint(True)
        assert (canvas.hu == 50).any()
        assert not (canvas.hu == 50)[~canvas.cavity].any()
        paint(False)
        assert (canvas.hu == 50)[~canvas.cavity].any()


def test_what_lies_outside_is_not_painted(canvas):
    canvas.ellipsoid((100, 0, 0), (8, 8, 8), FLAT, cavity=False)
    canvas.column((0, -90), (5, 5), FLAT)
    canvas.tube([(0, 90, 0), (0, 99, 9)], (4, 1), FLAT)
    assert (canvas.hu == -1000).all()


def test_a_texture_has_its_mean_and_sd():
    canvas = Canvas(np.random.default_rng(2), (64, 64, 64), (4, 4, 4), origin_mm=(0, 0, 0))
    canvas.column((128, 128), (999, 999), Texture(120, 20))
    assert canvas.hu.mean() == pytest.approx(120, abs=2)
    assert canvas.hu.std() == pytest.approx(20, abs=2)
