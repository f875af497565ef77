"""A5: its questions, the right answers, and how secret cases are drawn."""

import math

import numpy as np

from coursework.task import Part, Question, Task


def rates(losses, rate, factor, patience, delta, lowest):
    """Find the epochs after which the rate falls, and look each epoch's up."""
    falls, best, last = [], None, 0
    for epoch, loss in enumerate(losses, start=1):
        if best is None or best - loss > delta:
            best, last = loss, epoch
        elif epoch - last >= patience:
            falls.append(epoch)
            last = epoch
    used, now = [], rate
    for epoch in range(1, len(losses) + 1):
        used.append(now)
        if epoch in falls:
            now = max(lowest, now * factor)
    return used


def stop(losses, patience):
    """Look for the first epoch that ends `patience` others without a new best one."""
    values = [math.inf if math.isnan(loss) else loss for loss in losses]
    news = [n for n, v in enumerate(values) if v < min(values[:n], default=math.inf)]
    last = len(values)
    for end in range(patience, len(values) + 1):
        if not any(end - patience <= n < end for n in news):
            last = end
            break
    return max([n + 1 for n in news if n < last], default=0), last


CUT = """
def drive(function, weights, gradients, rate, cuts):
    state = None
    for first, last in zip([0, *cuts], [*cuts, len(gradients)]):
        for _ in range(2):  # all is in the state, which stays as it was given
            made = function(weights, gradients[first:last], rate, state)
        if made is None:
            return None
        weights, state = made
    return weights
"""


def adam_weights(weights, gradients, rate, cuts):
    """Take all steps at once, wherever they are cut: sums in closed form."""
    weights = weights.copy()
    for n in range(1, len(gradients) + 1):
        ages = np.arange(n)[::-1, None]
        m = (0.1 * 0.9**ages * gradients[:n]).sum(axis=0) / (1 - 0.9**n)
        v = (0.001 * 0.999**ages * gradients[:n] ** 2).sum(axis=0) / (1 - 0.999**n)
        weights -= rate * m / (np.sqrt(v) + 1e-7)
    return weights


def _curve(rng, count):
    fall = np.cumsum(
        rng.choice([-0.02, -0.01, 0.0, 0.01, 0.02], count, p=[0.15, 0.2, 0.15, 0.3, 0.2])
    )
    return [float(x) for x in np.round(fall, 3) - 0.5]


def _zigzag(rng):
    """Go up and down above the first loss: better than the last one, never than the best."""
    first, step = float(rng.uniform(-1, 0)), float(rng.uniform(0.1, 0.3))
    return [first, *[first + 2 * step, first + step] * 4]


def _teeth(rng, patience):
    """Be better just in time, again and again: the rate never falls."""
    best = -np.cumsum(rng.uniform(0.1, 0.3, 5))
    above = rng.uniform(0.01, 0.09, (5, patience - 1))
    return [float(x) for x in np.column_stack([best, best[:, None] + above]).ravel()]


def _plateaus(rng, delta=0.0, lowest=0.0):
    cases = []
    for patience in (1, 2, 3):
        factor = float(rng.choice([0.5, 0.2, 0.8]))
        cases.append((_curve(rng, 24), 0.1, factor, patience, delta, lowest))
    return cases


def _any_curve(rng):
    patience = int(rng.integers(2, 5))
    return [*_plateaus(rng), (_teeth(rng, patience), 0.1, 0.5, patience, 0.0, 0.0)]


def _simple(rng):
    n = int(rng.integers(3, 6))
    flat = [-0.5] * (2 * n + 3)
    rates = [(flat, 0.01, 0.2, n, 0.0, 0.0), (_zigzag(rng), 0.01, 0.2, 3, 0.0, 0.0)]
    return [*rates, ([-0.1 * k for k in range(9)], 0.01, 0.2, 2, 0.0, 0.0)]


def _small_steps(rng):
    steps = [-0.0625 * k for k in range(12)]  # exact in binary: a step is delta, and not more
    # With these the rate falls, and would not if every small step were progress.
    falling = [(steps, 0.1, 0.5, n, d, 0.0) for n, d in ((1, 0.0625), (2, 0.125), (3, 0.03))]
    return falling + _plateaus(rng, 0.015)


def _bottom(rng):
    return [([1.0] * 14, 0.1, 0.3, 2, 0.0, 0.004), *_plateaus(rng, lowest=0.03)]


def _stops(rng, count=22):
    return [(_curve(rng, count), patience) for patience in (2, 3, 4, 5)] + [(_zigzag(rng), 3)]


def _never(rng):
    falling = sorted(_curve(rng, 9), reverse=True)
    return [([*falling[:5], falling[4] - 1], 2), ([0.3, 0.2, 0.1], 9), ([0.5], 1)]


def _ties(rng):
    a = float(rng.uniform(-1, 0))
    return [
        ([0.0, a, a, a, a, a - 1], 3),
        ([0.0, a, 0.0, a, a - 1, 0.0, 0.0, 0.0], 3),
        ([a] * 6, 2),
    ]


def _nans(rng):
    nan, c = math.nan, _curve(rng, 8)
    return [
        ([nan, *c[:2], nan, nan, nan, -9.0], 3),
        ([nan, nan, -0.5, nan, -0.6, nan, nan, -0.1], 3),
        ([nan] * 5, 3),
        ([nan] * 2, 5),
        ([nan, nan, nan, -1.0], 3),
    ]


def _steps(rng, steps, rate=0.1):
    return rng.normal(size=3), rng.normal(size=(steps, 3)) * [1, 0.01, 5], rate


def _at_once(rng):
    return [(*_steps(rng, n, 0.05), []) for n in (1, 2, 7)]


def _cut(rng):
    return [(*_steps(rng, 10), [4]), (*_steps(rng, 12), [1, 2, 7]), (*_steps(rng, 6), [5])]


def _nothing(rng):
    return [(*_steps(rng, 5), [0, 3, 3]), (rng.normal(size=2), np.zeros((3, 2)), 0.1, [1])]


TASK = Task(
    name="a5",
    title="Training",
    written="q4",
    written_points=4,
    questions=(
        Question(
            "q1",
            "rates",
            rates,
            (
                Part(1, "flat, and falling", "The change shows in the next epoch.", _simple, True),
                Part(
                    2,
                    "any curve",
                    "In a row: a better epoch starts the count anew.",
                    _any_curve,
                    True,
                ),
                Part(
                    2, "small steps", "Better by more than delta; steps add up.", _small_steps, True
                ),
                Part(1, "the lowest rate", "Never below, and it stays there.", _bottom),
            ),
            tolerance=1e-9,
        ),
        Question(
            "q2",
            "stop",
            stop,
            (
                Part(1, "any curve", "Count the epochs since the best.", _stops, True),
                Part(1, "it never stops early", "Then the last is the last.", _never),
                Part(1, "equal losses", "The first is kept; equal is no progress.", _ties),
                Part(2, "nan", "nan is not smaller than anything, nor larger.", _nans),
            ),
        ),
        Question(
            "q3",
            "adam",
            adam_weights,
            (
                Part(2, "all at once", "Divide by 1 − βⁿ, with n from 1.", _at_once, True),
                Part(3, "cut and gone on", "n, m and v are in the state.", _cut),
                Part(
                    2,
                    "pieces without steps, gradients of 0",
                    "The state goes on as it is.",
                    _nothing,
                ),
            ),
            tolerance=1e-7,
            driver=CUT,
        ),
    ),
)
