"""A1: its questions, the right answers, and how secret cases are drawn."""

import numpy as np
from scipy import ndimage

from coursework.task import Part, Question, Task


def side(affine, voxel, middle_mm):
    """Take the voxel to the room, and compare."""
    x = float((np.asarray(affine) @ [*voxel, 1])[0]) - middle_mm
    return "middle" if -0.001 <= x <= 0.001 else ("left", "right")[x > 0]


def volumes_ml(label, affine):
    """Count voxels, and multiply by the triple product of their edges."""
    a, b, c = np.asarray(affine)[:3, :3].T
    voxel_ml = abs(float(np.dot(a, np.cross(b, c)))) / 1000
    return {int(n): int((label == n).sum()) * voxel_ml for n in np.unique(label) if n > 0}


def resample(volume, shape):
    """Interpolate at the centers of the new voxels."""
    places = np.meshgrid(
        *((np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(volume.shape, shape, strict=True)),
        indexing="ij",
    )
    return ndimage.map_coordinates(volume.astype(float), places, order=1, mode="nearest")


def ceiling(mask, shape):
    """Go there and back by whole numbers."""
    back = np.zeros_like(mask)
    for voxel in np.ndindex(*mask.shape):
        there = [
            (2 * i + 1) * m // (2 * n) for i, n, m in zip(voxel, mask.shape, shape, strict=True)
        ]
        source = tuple(
            (2 * i + 1) * n // (2 * m) for i, n, m in zip(there, mask.shape, shape, strict=True)
        )
        back[voxel] = mask[source]
    total = int(mask.sum() + back.sum())
    return 2 * int((mask & back).sum()) / total if total else 1.0


def _turned(rng):
    """Draw a rotation of any kind, a mirror half of the time."""
    turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return turned


def _affine(matrix, rng):
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def _spacing(rng):
    return np.diag(rng.uniform(0.6, 5, 3))


def _with_sides(affines, rng):
    cases = []
    for affine in affines:
        voxel = [int(n) for n in rng.integers(0, 300, 3)]
        x = float((affine @ [*voxel, 1])[0])
        cases += [(affine, voxel, x + d * rng.uniform(1, 60)) for d in (-1, 1)]
    return cases


def _straight(rng):
    flips = [np.diag(rng.choice([-1.0, 1.0], 3)) for _ in range(4)]
    return _with_sides([_affine(flip @ _spacing(rng), rng) for flip in flips], rng)


def _any_turn(rng):
    orders = [np.eye(3)[rng.permutation(3)] for _ in range(3)] + [_turned(rng) for _ in range(4)]
    return _with_sides([_affine(turn @ _spacing(rng), rng) for turn in orders], rng)


def _on_the_plane(rng):
    affine = _affine(_turned(rng) @ _spacing(rng), rng)
    voxel = [int(n) for n in rng.integers(0, 99, 3)]
    x = float((affine @ [*voxel, 1])[0])
    return [(affine, voxel, x + d) for d in (0, 0.0008, -0.0008, 0.002, -0.002)]


def _map(rng, most=3):
    return rng.integers(0, most, rng.integers(3, 7, 3)).astype(np.uint8)


def _boxes(rng):
    return [(_map(rng), _affine(_spacing(rng), rng)) for _ in range(3)]


def _mirrored(rng):
    turn = _turned(rng)
    turns = [turn, turn @ np.diag([-1.0, 1, 1]), np.diag([-1.0, -1, 1]), np.diag([1.0, 1, -1])]
    return [(_map(rng), _affine(t @ _spacing(rng), rng)) for t in turns]


def _sheared(rng):
    shear = np.eye(3) + np.triu(rng.uniform(0.2, 0.6, (3, 3)), 1)
    return [(_map(rng), _affine(shear @ _spacing(rng), rng)) for _ in range(2)]


def _labels(rng):
    two, none = _map(rng, 2) * 2, np.zeros((3, 3, 3), np.uint8)
    many = rng.permutation(np.arange(64) % 6).reshape(4, 4, 4)
    # Some programs write what they leave out as -1, and a list of organs is long.
    other = rng.permutation(np.arange(60) % 3).reshape(3, 4, 5)
    other = np.array([-1, 0, rng.integers(6, 300)], np.int16)[other]
    return [(label, _affine(_spacing(rng), rng)) for label in (two, none, many, other)]


def _shape(rng, low=2, high=8):
    return [int(n) for n in rng.integers(low, high, 3)]


def _constants(rng):
    return [(np.full(_shape(rng), rng.uniform(-9, 9)), _shape(rng)) for _ in range(3)]


def _ramps(rng):
    ramp = np.arange(6.0) * rng.uniform(1, 3)
    volumes = [ramp[:, None, None] + np.zeros((6, 2, 3)), ramp + np.zeros((2, 3, 6))]
    cases = [(v, _shape(rng, 3, 10)) for v in volumes for _ in range(2)]
    # As a CT is stored. At the new centers, 0.1 and more of a voxel off, none of it is whole.
    steps = np.arange(6, dtype=np.int16) * int(10 * rng.integers(1, 20) + 1) - 1000
    return [*cases, (np.tile(steps, (2, 3, 1)), [3, 2, 5])]


def _volumes(rng):
    shapes = [(_shape(rng), _shape(rng)) for _ in range(4)]
    return [(rng.normal(size=a), b) for a, b in shapes]


def _thin(rng):
    return [(rng.normal(size=(1, 4, 1)), [3, 7, 2]), (rng.normal(size=(4, 2, 5)), [1, 1, 1])]


def _blobs(rng, count, low, high):
    cases = []
    for _ in range(count):
        noise = ndimage.gaussian_filter(rng.normal(size=_shape(rng, 6, 11)), 1.2)
        cases.append((noise > np.quantile(noise, 0.6), _shape(rng, low, high)))
    return cases


def _half(rng):
    """Halve one axis: the odd voxels are kept, and hold more than the even ones."""
    mask = rng.random((4, 5, 6)) < 0.5
    mask[0, 0, :2] = False, True
    mask[..., ::2] &= mask[..., 1::2]
    return [(mask, [4, 5, 3])]


def _same_grid(rng):
    return [(rng.random((4, 5, 6)) < 0.3, [4, 5, 6]), (rng.random((3, 4, 2)) < 0.5, [6, 8, 4])]


def _nothing(rng):
    one = np.zeros((5, 5, 5), bool)
    one[0, 0, 0] = True
    return [(np.zeros((3, 4, 5), bool), _shape(rng)), (one, [2, 2, 2])]


TASK = Task(
    name="a1",
    title="Geometry",
    written="q5",
    written_points=4,
    questions=(
        Question(
            "q1",
            "side",
            side,
            (
                Part(1, "axes that are straight", "A negative entry mirrors.", _straight, True),
                Part(2, "any orientation", "All three indices can move x.", _any_turn),
                Part(1, "on the plane", "Within 0.001 mm on either side.", _on_the_plane),
            ),
        ),
        Question(
            "q2",
            "volumes_ml",
            volumes_ml,
            (
                Part(1, "voxels that are boxes", "1 ml is 1000 mm³.", _boxes, True),
                Part(1, "mirrored and turned", "No volume is negative.", _mirrored),
                Part(2, "sheared", "The determinant knows the volume.", _sheared),
                Part(1, "which labels there are", "All above 0, and no label of 0 ml.", _labels),
            ),
        ),
        Question(
            "q3",
            "resample",
            resample,
            (
                Part(1, "constants", "The two weights have to add up to 1.", _constants, True),
                Part(2, "ramps", "Half a voxel: centers lie at i + 0.5.", _ramps),
                Part(2, "any volume", "One axis after another.", _volumes, True),
                Part(1, "a single slice", "Both neighbors may be the same voxel.", _thin),
            ),
        ),
        Question(
            "q4",
            "ceiling",
            ceiling,
            (
                Part(1, "a grid that loses nothing", "DSC 1.", _same_grid, True),
                Part(
                    2,
                    "a coarse grid",
                    "There and back by the same rule.",
                    lambda r: _blobs(r, 4, 2, 6) + _half(r),
                ),
                Part(
                    1, "a grid of about the same size", "Here, too.", lambda r: _blobs(r, 4, 5, 12)
                ),
                Part(1, "nothing, and what vanishes", "0 / 0 is 1 here; 0 / 1 is 0.", _nothing),
            ),
        ),
    ),
)
