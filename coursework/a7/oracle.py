"""A7: its questions, the right answers, and how secret cases are drawn."""

from itertools import product

import numpy as np

from coursework.task import Part, Question, Task


def interval(a, b, draws):
    """Draw both networks' scores alike, and subtract their means."""
    means = sorted(float(np.mean(b[row]) - np.mean(a[row])) for row in draws)

    def percentile(share):
        place = share * (len(means) - 1)
        low = int(place)
        high = min(low + 1, len(means) - 1)
        return means[low] + (place - low) * (means[high] - means[low])

    return float(np.mean(b) - np.mean(a)), percentile(0.025), percentile(0.975)


def by_chance(differences):
    """Go through all choices of signs."""
    observed, count = abs(sum(differences)), 0
    for signs in product((-1, 1), repeat=len(differences)):
        total = sum(s * d for s, d in zip(signs, differences, strict=True))
        count += abs(total) >= observed - 1e-9
    return count / 2 ** len(differences)


def selection(scores, watched):
    """Choose by some, measure on the others."""
    others = [n for n in range(scores.shape[1]) if n not in set(watched)]
    means = [float(np.mean(row[list(watched)])) for row in scores]
    epoch = means.index(max(means))
    return {
        "epoch": epoch,
        "claimed": means[epoch],
        "honest": float(np.mean(scores[epoch][others])),
    }


def first_places(scores, draws):
    """Rank in each draw."""
    shares = np.zeros(len(scores))
    for row in draws:
        means = [float(np.mean(system[row])) for system in scores]
        first = [n for n, mean in enumerate(means) if mean >= max(means) - 1e-9]
        for n in first:
            shares[n] += 1 / len(first)
    return shares / len(draws)


def _draws(rng, times, patients):
    return rng.integers(0, patients, (times, patients))


def _paired(rng, patients=15, times=60):
    hard = rng.beta(2, 2, patients)
    a, b = (np.clip(hard + rng.normal(0, 0.03, patients), 0, 1) for _ in range(2))
    return a, b, _draws(rng, times, patients)


def _same(rng):
    a, _, draws = _paired(rng)
    return [(a, a, draws), (a, a + 0.125, draws)]


def _few(rng):
    return [_paired(rng, 1, 5), _paired(rng, 4, 3), _paired(rng, 6, 41)]


def _differences(rng):
    return [(rng.normal(s, 1, n),) for s, n in ((0.2, 6), (0.8, 9), (-0.6, 11), (0.4, 3))]


def _one_sided(rng):
    return [
        (np.abs(rng.normal(1, 0.3, n)) * sign,) for n, sign in ((5, 1), (7, -1), (1, 1), (10, 1))
    ]


def _equal_sums(rng):
    tenths = [rng.integers(-2, 4, n) / 10 for n in (8, 10, 5, 9)]
    # The last one is no difference, whatever its sign; rounding alone would not always tell.
    almost = np.append(rng.integers(1, 5, 8) / 10, 1e-12)
    return [(d,) for d in (*tenths, almost, np.zeros(4))]


def _scores(rng, epochs=12, patients=10, watched=4):
    chosen = [int(n) for n in rng.permutation(patients)[:watched]]
    return rng.beta(3, 2, (epochs, patients)), chosen


def _equal_epochs(rng):
    scores, watched = _scores(rng)
    # Best for the watched, and worst for all others.
    best, worst = scores.max(), scores.min(axis=0)
    scores[3] = scores[7] = worst
    scores[3][watched] = scores[7][watched] = best
    others, again = _scores(rng, 1)
    return [(scores, watched), (others, again)]


def _systems(rng, count=4, patients=9, times=40):
    return rng.beta(3, 2, (count, patients)), _draws(rng, times, patients)


def _several(rng):
    scores, draws = _systems(rng, 3)
    # Two draws of one patient each, won by two systems.
    draws[0], draws[1] = 0, 1
    scores[0, 0] = scores[1, 1] = 1
    return [(scores, draws), *(_systems(rng, n) for n in (2, 4, 6))]


def _shared(rng):
    scores, draws = _systems(rng, 3)
    twins = np.stack([scores[0], scores[0], scores[1]])
    near = np.stack([scores[0], scores[0] + 1e-12, scores[0] - 1e-3])
    return [(twins, draws), (near, draws), (np.full((4, 5), 0.5), _draws(rng, 7, 5))]


TASK = Task(
    name="a7",
    title="Evidence",
    written="q5",
    written_points=6,
    questions=(
        Question(
            "q1",
            "interval",
            interval,
            (
                Part(
                    2,
                    "two networks",
                    "Draw differences; b - a.",
                    lambda r: [_paired(r), _paired(r)],
                    True,
                ),
                Part(1, "a constant difference", "Then the interval has no width.", _same),
                Part(2, "few patients, few draws", "np.percentile interpolates.", _few),
            ),
        ),
        Question(
            "q2",
            "by_chance",
            by_chance,
            (
                Part(
                    2,
                    "any differences",
                    "Both sides: take the sum without its sign.",
                    _differences,
                    True,
                ),
                Part(
                    1,
                    "all in one direction",
                    "The observed choice counts, and its mirror.",
                    _one_sided,
                ),
                Part(2, "equal sums", "At least as far; rounding is no difference.", _equal_sums),
            ),
        ),
        Question(
            "q3",
            "selection",
            selection,
            (
                Part(
                    1,
                    "some are watched",
                    "Choose by them alone.",
                    lambda r: [_scores(r) for _ in "ab"],
                    True,
                ),
                Part(
                    2,
                    "many and few watched",
                    "All others, and no watched one, are honest.",
                    lambda r: [_scores(r, 20, 12, n) for n in (1, 6, 11)],
                ),
                Part(1, "equal epochs, a single epoch", "The first of them.", _equal_epochs),
            ),
        ),
        Question(
            "q4",
            "first_places",
            first_places,
            (
                Part(
                    2,
                    "several systems",
                    "Mean over the drawn patients, then the largest.",
                    _several,
                    True,
                ),
                Part(
                    1, "shared first places", "1/k for each of k; the shares add up to 1.", _shared
                ),
                Part(
                    1,
                    "one system, one draw",
                    "The formula holds.",
                    lambda r: [_systems(r, 1, 4, 6), _systems(r, 4, 6, 1)],
                ),
            ),
        ),
    ),
)
