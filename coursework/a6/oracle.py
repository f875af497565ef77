"""A6: its questions, the right answers, and how secret cases are drawn."""

from itertools import product

import numpy as np

from coursework.task import Part, Question, Task
from tunet_lib.config import Config
from tunet_lib.exchange import Lazy
from tunet_lib.postprocess import apply_lnet, merge, tumor_region, whole_region


def window_weights(window):
    """Weigh each voxel by its distance from the window's border."""
    weights = np.empty(window)
    for index in np.ndindex(*window):
        weights[index] = np.prod(
            [min(i, n - 1 - i) + 1 for i, n in zip(index, window, strict=True)]
        )
    return weights / weights.max()


def blend(answers, starts, weights, shape):
    """Average voxel by voxel over the windows that hold it."""
    result = np.zeros(shape)
    for voxel in np.ndindex(*shape):
        above = below = 0.0
        for answer, start in zip(answers, starts, strict=True):
            inside = tuple(v - s for v, s in zip(voxel, start, strict=True))
            if all(0 <= i < n for i, n in zip(inside, weights.shape, strict=True)):
                above += weights[inside] * answer[inside]
                below += weights[inside]
        result[voxel] = above / below if below else 0
    return result


def mean_and_spread(maps):
    """Mean and SD over the maps."""
    stack = np.stack(list(maps)).astype(float)
    return stack.mean(axis=0), stack.std(axis=0)


def grow(high, low, connectivity):
    """Spread from the sure voxels to their neighbors until nothing changes."""
    reach = {6: 1, 18: 2, 26: 3}[connectivity]
    steps = [s for s in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, s)) <= reach]
    grown = high.copy()
    edge = list(zip(*np.nonzero(high & low), strict=True))
    while edge:
        voxel = edge.pop()
        for step in steps:
            other = tuple(int(v + s) for v, s in zip(voxel, step, strict=True))
            inside = all(0 <= i < n for i, n in zip(other, low.shape, strict=True))
            if inside and low[other] and not grown[other]:
                grown[other] = True
                edge.append(other)
    return grown


def verdict(whole_prob, tumor_prob, lnet_mask, rule):
    """Algorithm 1 of the library, with the numbers of `rule`."""
    config = Config.preset(
        "paper",
        **{
            "high_threshold": rule["high"],
            "whole_low_threshold": rule["whole_low"],
            "tumor_low_threshold": rule["tumor_low"],
            "small_tumor_low_threshold": rule["small_low"],
            "empty_low_threshold": rule["empty_low"],
            "tumor_is_whole_if_none": rule["tumor_if_none"],
        },
    )
    whole = whole_region(whole_prob, config)
    tumor = tumor_region(tumor_prob, whole, config, small_voxels=rule["small_voxels"])
    label = merge(whole, tumor)
    return apply_lnet(label, lnet_mask) if lnet_mask.any() else label


def _size(rng, low=2, high=7):
    return tuple(int(n) for n in rng.integers(low, high, 3))


def _line(rng):
    return [((1, 1, int(n)),) for n in rng.permutation([1, 2, 5, 6, 9])]


def _boxes(rng):
    return [(_size(rng),) for _ in range(4)] + [((3, 4, 5),)]


def _windows(rng, starts, shape, window=(2, 3, 4)):
    answers = rng.uniform(-1, 1, (len(starts), *window))
    return answers, [list(s) for s in starts], rng.uniform(0.1, 1, window), list(shape)


def _constant(rng):
    value, window = rng.uniform(0.2, 0.9), (2, 3, 4)
    starts = [[0, 0, x] for x in (0, 2, 4)]
    return [(np.full((3, *window), value), starts, rng.uniform(0.1, 1, window), [2, 3, 8])]


def _overlaps(rng):
    shape = (4, 5, 9)
    grid = list(product((0, 1, 2), (0, 2), (0, 3, 5)))
    few = [grid[i] for i in sorted(rng.choice(len(grid), 9, replace=False))]
    return [_windows(rng, grid, shape), _windows(rng, few, shape)]


def _over_the_border(rng):
    z, y, x = (int(n) for n in rng.integers(1, 3, 3))
    return [_windows(rng, [(0, 0, 0), (z, y, x)], (z + 1, y + 2, x + 2), (2, 3, 4))]


def _left_out(rng):
    z = int(rng.integers(2, 5))
    return [_windows(rng, [(z, 1, 0), (z, 2, 1)], (7, 7, 8))]


def _maps(rng, count, lazy):
    stack = rng.uniform(0, 1, (count, 2, 3, 4)).astype(np.float32)
    # Sums of squares in float32 lose a small spread, and to keep them in float32 costs nothing.
    while (alike := (stack.std(axis=0) < 0.005 * count) & (count > 1)).any():
        stack[:, alike] = rng.uniform(0, 1, (count, alike.sum()))
    maps = list(stack)
    return (Lazy(maps) if lazy else maps,)


def _islands(connectivity):
    def draw(rng):
        cases = []
        for _ in range(6):
            low = rng.random((5, 7, 7)) < {6: 0.3, 18: 0.16, 26: 0.11}[connectivity]
            high = low & (rng.random(low.shape) < 0.12)
            cases.append((high, low, connectivity))
        return cases

    return draw


def _corners(rng):
    """Chains of voxels that share a face, an edge, or a corner only."""
    cases = []
    for step in ((0, 0, 1), (0, 1, 1), (1, 1, 1), (1, -1, 1), (1, 0, -1)):
        low = np.zeros((5, 5, 5), bool)
        voxel = np.array([0 if s >= 0 else 4 for s in step])
        for _ in range(4):
            low[tuple(voxel)] = True
            voxel = voxel + step
        high = np.zeros_like(low)
        high[tuple(np.argwhere(low)[rng.integers(low.sum())])] = True
        cases += [(high, low, connectivity) for connectivity in (6, 18, 26)]
    return cases


def _sure_alone(rng):
    high, low = (rng.permutation(120).reshape(4, 5, 6) < 14 for _ in range(2))
    # In a row: a sure voxel of `low`, one outside of it, and a component that they do not reach.
    bridge = np.zeros((2, 4, 5, 6), bool)
    z, y = (int(n) for n in rng.integers(0, 4, 2))
    bridge[0, z, y, 1:3] = bridge[1, z, y, [1, 3, 4]] = True
    nothing = np.zeros_like(low)
    return [(high, low, 26), (*bridge, 26), (high, nothing, 6), (nothing, low, 18)]


RULE = {
    "high": 0.7,
    "whole_low": 0.4,
    "tumor_low": 0.3,
    "small_low": 0.2,
    "small_voxels": 4,
    "empty_low": 0.5,
    "tumor_if_none": True,
}
LEVELS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8)
SHAPE = (4, 6, 6)


def _rule(rng, **given):
    """Other numbers each time, in the order of the paper's, so that none can be written down."""
    shift = float(rng.choice([0.0, 0.05]))
    drawn = {k: v - shift if isinstance(v, float) else v for k, v in RULE.items()}
    return drawn | {"small_voxels": int(rng.integers(3, 7))} | given


def _prob(rng, rule, below=2.0, keys=()):
    """Draw from a few levels, the thresholds themselves among them: ≥ and > differ there."""
    levels = np.array([*LEVELS, *(rule[key] for key in keys)])
    weights = np.where(levels < 0.15, 14.0, 1.0) * (levels < below)
    return rng.choice(levels, SHAPE, p=weights / weights.sum())


def _with_sure(prob, rule, rng, count):
    """Set so many voxels to the high threshold, and no other voxel reaches it."""
    prob = np.minimum(prob, rule["high"] - 0.01)
    places = rng.choice(prob.size, count, replace=False)
    prob.flat[places] = rule["high"]
    return prob


def _everywhere():
    return np.ones(SHAPE, bool)


def _usual(rng):
    cases = []
    for _ in range(6):
        rule = _rule(rng)
        whole = _with_sure(_prob(rng, rule, keys=("whole_low",)), rule, rng, 9)
        tumor = _with_sure(
            _prob(rng, rule, keys=("tumor_low", "small_low")), rule, rng, rule["small_voxels"] + 2
        )
        # A voxel that could grow, and no way to it from one that is sure.
        whole[:2, :2, :2] = tumor[0, 0, 0] = 0
        whole[0, 0, 0] = rule["whole_low"]
        cases.append((whole, tumor, _everywhere(), rule))
    return cases


def _small(rng):
    cases = []
    for extra in (-1, -1, -2, 0, 0, 1):
        rule = _rule(rng)
        whole = _with_sure(_prob(rng, rule), rule, rng, 6)
        tumor = _with_sure(
            _prob(rng, rule, keys=("small_low", "tumor_low")),
            rule,
            rng,
            rule["small_voxels"] + extra,
        )
        cases.append((whole, tumor, _everywhere(), rule))
    return cases


def _unsure(rng):
    cases = []
    for _ in range(4):
        rule = _rule(rng)
        whole, tumor = (
            np.minimum(_prob(rng, rule, keys=["empty_low"] * 4), rule["high"] - 0.02)
            for _ in range(2)
        )
        tumor.flat[rng.integers(tumor.size)] = rule["empty_low"]
        cases += [(whole, tumor, _everywhere(), rule)]
        cases += [(_with_sure(whole, rule, rng, 4), tumor, _everywhere(), rule)]
    return cases


def _none(rng):
    cases = []
    for flag in (True, False, True):
        rule = _rule(rng, tumor_if_none=flag)
        whole = _with_sure(_prob(rng, rule), rule, rng, 6)
        tumor = _prob(rng, rule, below=rule["empty_low"] - 0.001)
        cases.append((whole, tumor, _everywhere(), rule))
    # The whole region is the tumor also where no voxel of it is sure.
    rule = _rule(rng)
    whole = np.minimum(_prob(rng, rule), rule["high"] - 0.02)
    whole.flat[rng.integers(whole.size)] = rule["empty_low"]
    return [*cases, (whole, _prob(rng, rule, below=0.4), _everywhere(), rule)]


def _masked(rng):
    cases = []
    for share in (0.5, 0.5, 0.0):
        rule = _rule(rng)
        whole = _with_sure(_prob(rng, rule), rule, rng, 9)
        tumor = _with_sure(_prob(rng, rule), rule, rng, rule["small_voxels"] + 1)
        cases.append((whole, tumor, rng.random(SHAPE) < share, rule))
    # Two masks without tumor, of which one holds kidney and the other nothing.
    rule = _rule(rng)
    whole, tumor = _prob(rng, rule), _prob(rng, rule)
    whole[2:] = tumor[:2] = whole[1, -1, -1] = 0
    whole[0, 0, 0] = tumor[-1, 0, 0] = rule["high"]
    kidney, nothing = np.zeros((2, *SHAPE), bool)
    kidney[:2] = nothing[1, -1, -1] = True
    return [*cases, *((whole, tumor, mask, rule) for mask in (kidney, nothing))]


TASK = Task(
    name="a6",
    title="Verdict",
    written="q6",
    written_points=4,
    questions=(
        Question(
            "q1",
            "window_weights",
            window_weights,
            (
                Part(
                    1, "a window of one row", "Along an axis: 1 2 3 2 1, divided by 3.", _line, True
                ),
                Part(
                    2,
                    "windows of any size",
                    "The weights of the three axes are multiplied.",
                    _boxes,
                ),
            ),
        ),
        Question(
            "q2",
            "blend",
            blend,
            (
                Part(
                    1,
                    "a constant stays that constant",
                    "Divide by the sum of the weights at each voxel, not by a number of windows.",
                    _constant,
                    True,
                ),
                Part(2, "overlapping windows", "Sum answer times weight, and weight.", _overlaps),
                Part(
                    1,
                    "a window that reaches over the border",
                    "Cut what lies outside from the answer and from the weights.",
                    _over_the_border,
                ),
                Part(
                    1,
                    "voxels in no window are 0",
                    "Where the sum of the weights is 0, do not divide.",
                    _left_out,
                ),
            ),
        ),
        Question(
            "q3",
            "mean_and_spread",
            mean_and_spread,
            (
                Part(
                    1,
                    "a list of maps",
                    "The SD divides by the number of maps, not by one less.",
                    lambda rng: [_maps(rng, n, False) for n in (2, 4)],
                    True,
                ),
                Part(
                    2,
                    "maps that come one by one",
                    "An iterator has no length and can be gone through once.",
                    lambda rng: [_maps(rng, n, True) for n in (3, 5, 4)],
                ),
                Part(
                    1,
                    "a single map",
                    "One map is its own mean, and its spread is 0.",
                    lambda rng: [_maps(rng, 1, True), _maps(rng, 1, False)],
                ),
            ),
            tolerance=1e-5,
        ),
        Question(
            "q4",
            "grow",
            grow,
            (
                Part(
                    2,
                    "26 neighbors",
                    "Keep a component if it holds a sure voxel.",
                    _islands(26),
                    True,
                ),
                Part(1, "6 neighbors", "Voxels that share a face.", _islands(6)),
                Part(1, "18 neighbors", "Voxels that share a face or an edge.", _islands(18)),
                Part(
                    1, "chains over corners", "Draw two voxels of each kind of neighbor.", _corners
                ),
                Part(
                    1,
                    "sure voxels that are in no component",
                    "All of `high` is kept, also where `low` is empty; `high` may be empty.",
                    _sure_alone,
                ),
            ),
        ),
        Question(
            "q5",
            "verdict",
            verdict,
            (
                Part(1, "a usual case", "Lines 8, 24 and 27; ≥ and not >.", _usual, True),
                Part(
                    1, "a small tumor", "Lines 20-21: small is fewer voxels, not as many.", _small
                ),
                Part(2, "nothing is sure", "Lines 4 and 12, one map without the other.", _unsure),
                Part(1, "no tumor is found", "Line 14, only where the rule says so.", _none),
                Part(1, "L-Net's mask", "Line 28, and what an empty mask means.", _masked),
            ),
        ),
    ),
)
