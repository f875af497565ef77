"""A4: its questions, the right answers, and how secret cases are drawn."""

from itertools import pairwise

import numpy as np

from coursework.task import Part, Question, Task


def level_shapes(patch, levels, flat):
    """Divide the patch by the whole factor of each level."""
    shapes = []
    for level in range(levels):
        factor = np.array([2 ** max(level - flat, 0), 2**level, 2**level])
        if np.any(np.array(patch) % factor):
            return None
        shapes.append([int(n) for n in np.array(patch) // factor])
    return shapes


def parameters(inputs, filters, kernel, outputs):
    """List every layer's shape, and add up their sizes."""
    pairs = list(zip([inputs, *filters], filters, strict=False)) + [(f, f) for f in filters]
    for upper, lower in pairwise(filters):
        pairs += [(upper + lower, upper), (upper, upper)]
    sizes = [kernel**3 * a * b + 3 * b for a, b in pairs]
    return sum(sizes) + (filters[0] + 1) * outputs


def excite(maps, mask, w1, b1, w2, b2):
    """Average channel by channel."""
    channels = maps.shape[-1]
    inside = max(int(mask.sum()), 1)
    mean = np.array([maps[..., c][mask].sum() / inside for c in range(channels)])
    hidden = (mean @ w1 + b1).clip(min=0)
    weight = 0.5 * (1 + np.tanh((hidden @ w2 + b2) / 2))
    return maps * weight


def gradients(w, t, x, y, u, cut):
    """Differentiate in numbers of a complex step, which loses no digits."""

    def loss(w, t, fixed):
        p = 1 / (1 + np.exp(-w * x))
        q = 1 / (1 + np.exp(-t * (x + (p if fixed is None else fixed))))
        return ((p - y) ** 2 + (q - u) ** 2).mean()

    fixed = 1 / (1 + np.exp(-w * x)) if cut else None
    step = 1e-30j
    return float(loss(w + step, t, fixed).imag / 1e-30), float(
        loss(w, t + step, fixed).imag / 1e-30
    )


def _patches(flat, rng):
    cases = []
    for levels in (2, 3, 4):
        deep = 2 ** max(levels - 1 - flat, 0)
        z, y, x = rng.integers(1, 6, 3) * [deep, 2 ** (levels - 1), 2 ** (levels - 1)]
        cases.append(([int(z), int(y), int(x)], levels, flat))
    return cases


def _odd(rng):
    a, b = (int(n) for n in 2 * rng.integers(2, 5, 2) + 1)
    return [([8, 8, a], 2, 0), ([8, b * 2, 8], 3, 1), ([a, 16, 16], 3, 1), ([a, 16, 16], 3, 2)]


def _networks(rng, levels, kernel=3, inputs=1, outputs=1):
    filters = rng.choice(range(3, 20), levels, replace=False)
    return int(inputs), [int(n) for n in filters], int(kernel), int(outputs)


def _maps(rng, share=0.5, channels=4):
    maps = rng.normal(1, 1, (2, 3, 4, channels))
    mask = rng.random((2, 3, 4)) < share
    w1, w2 = rng.normal(size=(channels, 2)) * 2, rng.normal(size=(2, channels))
    mean = maps[mask].sum(axis=0) / max(mask.sum(), 1)
    # ReLU lets one hidden value through and the other not: it matters, and so does the mean.
    b1 = rng.permutation([1, -1]) * rng.uniform(0.5, 2, 2) - mean @ w1
    return maps, mask, w1, b1, w2, rng.normal(size=channels)


def _full(rng):
    return [_maps(rng, 2.0, c) for c in (3, 5)]


def _voxels(rng, cut, count=12):
    x = rng.normal(size=count)
    y, u = (rng.random((2, *x.shape)) < 0.5).astype(float)
    return float(rng.uniform(0.3, 2)), float(rng.uniform(0.5, 2)), x, y, u, cut


def _silent(rng):
    """Give a T-Net that ignores what it sees, and a W-Net that says one half everywhere."""
    w, t, x, y, u, _ = _voxels(rng, False)
    return [(w, 0.0, x, y, u, False), (0.0, t, x, y, u, False), (w, 0.0, x, y, u, True)]


TASK = Task(
    name="a4",
    title="Networks",
    written="q5",
    written_points=4,
    questions=(
        Question(
            "q1",
            "level_shapes",
            level_shapes,
            (
                Part(
                    1,
                    "all axes halved",
                    "The first shape is the patch.",
                    lambda r: _patches(0, r),
                    True,
                ),
                Part(
                    2,
                    "z left alone at first",
                    "`flat` counts steps, not levels.",
                    lambda r: _patches(1, r) + _patches(2, r),
                ),
                Part(1, "odd sizes", "Odd z does no harm while z is left alone.", _odd),
                Part(
                    1,
                    "a single level",
                    "No step down: no size is odd.",
                    lambda r: [([int(n) for n in r.integers(1, 9, 3)], 1, f) for f in (0, 1)],
                ),
            ),
        ),
        Question(
            "q2",
            "parameters",
            parameters,
            (
                Part(
                    1,
                    "one level",
                    "Two convolutions and the last.",
                    lambda r: [_networks(r, 1)],
                    True,
                ),
                Part(
                    2,
                    "several levels",
                    "The joined channels are those of both levels.",
                    lambda r: [_networks(r, n) for n in (2, 3, 5)],
                ),
                Part(
                    1,
                    "other inputs and outputs",
                    "The last layer has 1³, a bias, and no normalization.",
                    lambda r: [_networks(r, 3, 3, r.integers(2, 5), r.integers(2, 5))],
                ),
                Part(
                    2,
                    "other kernels",
                    "k³ times in times out, and a bias for each output.",
                    lambda r: [_networks(r, n, k) for n, k in ((2, 1), (3, 5), (1, 2))],
                ),
            ),
        ),
        Question(
            "q3",
            "excite",
            excite,
            (
                Part(1, "a mask that is full", "Mean, ReLU, sigmoid, multiply.", _full, True),
                Part(
                    2,
                    "a mask of some voxels",
                    "Average in the mask, multiply everywhere.",
                    lambda r: [_maps(r, s, c) for s, c in ((0.5, 4), (0.2, 3), (0.7, 6))],
                ),
                Part(1, "an empty mask", "0, and no nan.", lambda r: [_maps(r, 0), _maps(r, 0, 2)]),
            ),
        ),
        Question(
            "q4",
            "gradients",
            gradients,
            (
                Part(
                    1,
                    "the gradient is cut",
                    "The chain rule for each network alone; the mean over voxels.",
                    lambda r: [_voxels(r, True) for _ in range(2)],
                    True,
                ),
                Part(
                    3,
                    "the gradient goes through",
                    "p stands in T-Net's input, too.",
                    lambda r: [_voxels(r, False, n) for n in (5, 12, 20, (2, 3, 4))],
                ),
                Part(1, "weights of 0", "Formulas hold there as well.", _silent),
            ),
        ),
    ),
)
