"""A3: its questions, the right answers, and how secret cases are drawn."""

import math

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from coursework.task import Part, Question, Task
from tunet_lib.metrics import kits19_score


def scores(predicted, truth, empty):
    """Score as the library does."""
    return kits19_score(predicted, truth, empty=empty)


def dice_loss(prob, truth, together, s):
    """Go through the batch and the channels one by one."""

    def one(p, t):
        return -(2 * math.fsum((p * t).ravel()) + s) / (
            math.fsum(p.ravel()) + math.fsum(t.ravel()) + s
        )

    channels = range(prob.shape[-1])
    if together:
        return sum(one(prob[..., c], truth[..., c]) for c in channels)
    losses = [
        sum(one(p[..., c], t[..., c]) for c in channels) for p, t in zip(prob, truth, strict=True)
    ]
    return sum(losses) / len(losses)


def half_dice(prob, truth):
    """Sum without any rounding."""
    p, t = (a.ravel().astype(float) for a in (prob, truth))
    total = math.fsum(p) + math.fsum(t)
    return 2 * math.fsum(p * t) / total if total else 1.0


def hd95(a, b, spacing_mm):
    """Find surfaces by erosion, and the nearest voxel by a tree."""
    if not a.any() or not b.any():
        return math.inf if a.any() or b.any() else math.nan
    points = []
    for mask in (a, b):
        inside = ndimage.binary_erosion(mask, border_value=0)
        points.append(np.argwhere(mask & ~inside) * spacing_mm)
    one, other = points
    there, back = KDTree(other).query(one)[0], KDTree(one).query(other)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _map(rng, share=0.4):
    return rng.choice([0, 1, 2], (3, 5, 5), p=[1 - share, share / 2, share / 2]).astype(np.uint8)


def _maps(rng):
    return [(_map(rng), _map(rng), float(rng.random())) for _ in range(3)]


def _one_empty(rng):
    kidney = np.minimum(_map(rng), 1)
    return [(kidney, _map(rng), 0.3), (_map(rng), kidney, 0.3), (kidney * 0, _map(rng), 0.3)]


def _both_empty(rng):
    kidney, nothing = np.minimum(_map(rng), 1), np.zeros((3, 5, 5), np.uint8)
    chosen = float(rng.uniform(0.1, 0.9))
    return [
        (kidney, np.minimum(_map(rng), 1), chosen),
        (nothing, nothing, chosen),
        (kidney, kidney, 0.0),
    ]


def _outside(rng):
    """Tumor where the other map has kidney: right for the whole, wrong for the tumor."""
    truth = _map(rng)
    return [(np.where(truth > 0, 3 - truth, 0).astype(np.uint8), truth, 1.0)]


def _batch(rng, together, size=3, channels=2):
    shape = (size, 2, 3, 4, channels)
    truth = (rng.random(shape) < rng.uniform(0.05, 0.5, (size, 1, 1, 1, channels))).astype(float)
    return rng.random(shape), truth, together, float(rng.uniform(0.5, 2))


def _without_tumor(rng):
    cases = []
    for together in (True, False):
        prob, truth, _, s = _batch(rng, together)
        truth[1] = 0
        cases.append((prob, truth, together, s))
    return cases


def _halves(rng, count, scale):
    prob = (rng.random(count) * scale).astype(np.float16)
    return prob, (rng.random(count) < 0.4).astype(np.float16)


def _large(rng):
    count = int(rng.integers(90_000, 120_000))
    # The product of two odd 128ths has more digits than 16 bits hold.
    odd = 2 * rng.integers(32, 64, (3, 2)) + 1
    pairs = [(rng.uniform(0.6, 0.9), 1), *odd / 128]
    return [tuple(np.full(count, value, np.float16) for value in pair) for pair in pairs]


def _tiny(rng):
    # Of these the products are less than half of what float16 can hold, and their Dice is not.
    prob = rng.uniform(0.6e-4, 1.6e-4, 40).astype(np.float16)
    return [(prob, prob), (prob, np.zeros_like(prob)), (prob * 0, prob * 0)]


def _blob(rng, shape=(6, 8, 8)):
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.3)
    return noise > np.quantile(noise, 0.75)


def _spacing(rng):
    return [float(mm) for mm in rng.uniform(0.6, 4, 3)]


def _cubes(rng):
    a, b = np.zeros((2, 7, 9, 9), bool)
    a[1:5, 1:5, 1:5] = True
    z, y, x = (int(n) for n in rng.integers(0, 4, 3))
    b[z : z + 4, y : y + 4, x : x + 4] = True
    hollow = a & ~ndimage.binary_erosion(a)
    return [(a, b, [1.0, 1.0, 1.0]), (a, a, [2.0, 1.0, 1.0]), (a, hollow, _spacing(rng))]


def _pairs(rng):
    """Blobs, and a cube with a hole in it: the hole's border is surface, and inside the other."""
    solid = np.zeros((9, 9, 9), bool)
    solid[1:8, 1:8, 1:8] = True
    hollow = solid.copy()
    hollow[3:6, 3:6, 3:6] = False
    cubes = [(solid, hollow, _spacing(rng)), (hollow, solid, _spacing(rng))]
    return [(_blob(rng), _blob(rng), _spacing(rng)) for _ in range(4)] + cubes


def _stray(rng):
    a = _blob(rng)
    b = np.zeros_like(a)
    b[tuple(np.argwhere(a)[0])] = True
    c = a.copy()
    c[0, 0, 0] = c[-1, -1, -1] = True
    return [
        (a, b, _spacing(rng)),
        (b, a, _spacing(rng)),
        (a, c, _spacing(rng)),
        (c, a, _spacing(rng)),
    ]


def _at_the_border(rng):
    a = np.ones((3, 4, 5), bool)
    b = a.copy()
    b[:, :, 2:] = False
    return [(a, b, _spacing(rng)), (a, np.roll(b, 1, 2), _spacing(rng))]


def _none(rng):
    a = _blob(rng)
    return [
        (a, a & False, _spacing(rng)),
        (a & False, a, _spacing(rng)),
        (a & False,) * 2 + (_spacing(rng),),
    ]


TASK = Task(
    name="a3",
    title="Loss and metrics",
    written="q5",
    written_points=4,
    questions=(
        Question(
            "q1",
            "scores",
            scores,
            (
                Part(1, "two maps", "Whole is kidney and tumor together.", _maps, True),
                Part(1, "tumor taken for kidney", "The whole is right all the same.", _outside),
                Part(1, "a region in one map only", "0, whatever `empty` is.", _one_empty),
                Part(2, "a region in neither map", "`empty`, also in the mean.", _both_empty),
            ),
        ),
        Question(
            "q2",
            "dice_loss",
            dice_loss,
            (
                Part(
                    1,
                    "each patch for itself",
                    "Sum over z, y, x; then add channels, then average patches.",
                    lambda rng: [_batch(rng, False) for _ in range(2)],
                    True,
                ),
                Part(
                    2,
                    "all together",
                    "Sum over the batch, too, before you divide.",
                    lambda rng: [_batch(rng, True) for _ in range(2)],
                ),
                Part(1, "one has no tumor", "`s` is above and below.", _without_tumor),
                Part(
                    1,
                    "one patch",
                    "Then both are the same.",
                    lambda rng: [_batch(rng, t, size=1) for t in (True, False)],
                ),
                Part(
                    1,
                    "other numbers of channels",
                    "Channels are the last axis.",
                    lambda rng: [_batch(rng, t, channels=c) for t in (True, False) for c in (1, 3)],
                ),
            ),
        ),
        Question(
            "q3",
            "half_dice",
            half_dice,
            (
                Part(
                    1,
                    "a small patch",
                    "The formula.",
                    lambda rng: [_halves(rng, n, 1.0) for n in (20, 60)],
                    True,
                ),
                Part(2, "a large patch", "Which type do products and sums have?", _large),
                Part(1, "tiny probabilities", "Products are smaller still.", _tiny),
            ),
            tolerance=1e-5,
        ),
        Question(
            "q4",
            "hd95",
            hd95,
            (
                Part(1, "two cubes", "Distances are between surfaces, in mm.", _cubes, True),
                Part(
                    2,
                    "any two masks",
                    "Each axis times its spacing; surface to surface; the larger direction.",
                    _pairs,
                ),
                Part(1, "stray voxels", "Both directions, 95 and not 100 %.", _stray),
                Part(1, "masks at the border", "Outside of the volume is no mask.", _at_the_border),
                Part(1, "empty masks", "One: infinite; both: nan.", _none),
            ),
        ),
    ),
)
