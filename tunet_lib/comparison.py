"""Two systems on the same cases: by how much they differ, and how sure that is.

Chapters 14 (``notebooks/14_results.ipynb``) and 16 (``notebooks/16_ablations.ipynb``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Sized
from typing import NamedTuple

import numpy as np
from scipy import stats

from tunet_lib.evaluation import Row
from tunet_lib.files import DataError

ROUNDING = 1e-12  # an SD below it is that of equal numbers


class Changes(NamedTuple):
    """What every case gains from one system to another.

    Attributes
    ----------
    case_ids
        The cases that both systems have a score of, sorted.
    folds
        The fold of each, int (cases,).
    gains
        The second system's score minus the first one's, float (cases,).
    """

    case_ids: list[str]
    folds: np.ndarray
    gains: np.ndarray

    def fold_means(self) -> np.ndarray:
        """Average the gains of each fold: float (folds,)."""
        return np.array([self.gains[self.folds == fold].mean() for fold in np.unique(self.folds)])


class Interval(NamedTuple):
    """The middle 95 % of where the true mean may be, and the p-value of no difference."""

    low: float
    high: float
    p: float


def pair_cases(
    rows: Iterable[Row], before: str, after: str, *, field: str = "grid_tumor"
) -> Changes:
    """Subtract two systems' scores case by case, which removes how hard each case is.

    Parameters
    ----------
    rows
        Scored cases.
    before, after
        Keys of `evaluation.SYSTEMS` or `evaluation.STEPS`.
    field
        Which score, such as ``"grid_tumor"``.

    Raises
    ------
    DataError
        No case has this score of both; or one has two of a system, or is of two folds.
    """
    scores: dict[str, dict[str, float]] = {before: {}, after: {}}
    fold_of: dict[str, int] = {}
    for row in rows:
        if field not in row:
            raise DataError(f"{row['case_id']} has no score {field}")
        if row["system"] in scores and row[field] is not None:
            case_id, of_system = row["case_id"], scores[row["system"]]
            if case_id in of_system:
                raise DataError(f"{case_id} has two scores of {row['system']}")
            if fold_of.setdefault(case_id, row["fold"]) != row["fold"]:
                raise DataError(f"{case_id} is of two folds")
            of_system[case_id] = row[field]
    both = sorted(scores[before].keys() & scores[after].keys())
    if not both:
        raise DataError(f"no case has {field} of both {before} and {after}")
    gains = np.array([scores[after][name] - scores[before][name] for name in both])
    return Changes(both, np.array([fold_of[name] for name in both]), gains)


def resample_cases(changes: Changes, times: int = 4000, seed: int = 14) -> Interval:
    """Draw the cases again, with repetition: what other patients would change.

    Of few cases, below some twenty, the interval is too narrow and p too small.

    Raises
    ------
    DataError
        There is a single case, which says nothing of how cases vary.
    """
    check_several(changes.gains, "case")
    drawn = np.random.default_rng(seed).integers(0, len(changes.gains), (times, len(changes.gains)))
    return percentile_interval(changes.gains[drawn].mean(axis=1))


def resample_folds(changes: Changes, times: int = 4000, seed: int = 14) -> Interval:
    """Draw folds, then cases within each: what other trainings and other patients would change.

    A fold's networks are one training, so that its cases are drawn or left out together. Of few
    folds the interval is too narrow and p too small, since few draws of few folds differ as much
    as new folds would; to test, take `corrected_t`.

    Raises
    ------
    DataError
        There is a single fold, which says nothing of how folds vary.
    """
    rng = np.random.default_rng(seed)
    folds = [changes.gains[changes.folds == fold] for fold in np.unique(changes.folds)]
    check_several(folds, "fold")
    chosen = rng.integers(0, len(folds), (times, len(folds)))
    means = np.empty(chosen.shape)
    for fold, gains in enumerate(folds):
        places = chosen == fold
        drawn = rng.integers(0, len(gains), (places.sum(), len(gains)))
        means[places] = gains[drawn].mean(axis=1)
    return percentile_interval(means.mean(axis=1))


def corrected_t(
    fold_means: Sequence[float] | np.ndarray, *, of_folds: int | None = None
) -> Interval:
    """Test the mean of the folds' gains, as trainings on nearly the same cases allow.

    The plain t-test takes folds for independent. Two of five share three quarters of their
    training cases, so that their mean varies by more than the variance over 5: by
    1 / (of_folds - 1), cases held out to cases trained on, times the variance more. Cases that a
    training watches to choose its epoch count among these: it depends on them, too.

    Parameters
    ----------
    fold_means
        The mean gain of each fold, at least two. Where all are alike and not 0 nothing says how
        folds vary, and all of the result is NaN.
    of_folds
        Into how many folds the cases were split, where not all of them were scored.

    Raises
    ------
    DataError
        There is a single fold, which says nothing of how folds vary; or more than `of_folds`.

    Source
    ------
    Nadeau & Bengio, Inference for the generalization error, Machine Learning 52, 2003.
    """
    gains = np.asarray(fold_means, np.float64)
    folds = len(gains)
    check_several(gains, "fold")
    if (of_folds or folds) < folds:
        raise DataError(f"{folds} folds were scored, of {of_folds}")
    held_out_to_trained = 1 / ((of_folds or folds) - 1)
    error = math.sqrt((1 / folds + held_out_to_trained) * gains.var(ddof=1))
    reach = stats.t.ppf(0.975, folds - 1) * error
    if error < ROUNDING:  # all folds gain alike: nothing, or what no spread can be held against
        is_nothing = abs(gains.mean()) < ROUNDING
        return Interval(0.0, 0.0, 1.0) if is_nothing else Interval(math.nan, math.nan, math.nan)
    p = 2 * stats.t.sf(abs(gains.mean()) / error, folds - 1)
    return Interval(gains.mean() - reach, gains.mean() + reach, float(p))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values for their number: the smallest times n, the next times n - 1, and so on.

    Whoever asks n questions of pure noise finds one of them below 0.05 more often than not
    from n = 14 on. After the correction the chance of any such find is 5 % in all.

    Parameters
    ----------
    p_values
        Those of all comparisons that were made, whatever came of them.

    Returns
    -------
    numpy.ndarray
        In the same order, at most 1, and never smaller than that of a smaller p-value.

    Source
    ------
    Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 1979.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(corrected, 1.0)


def effect_size(changes: Changes) -> float:
    """Give the mean gain in SDs of the gains: 0.2 is small, 0.5 medium, 0.8 large.

    0 where all gains are alike, which leaves nothing to measure them by; NaN where one is not
    finite, as of distances to what was not found.

    Raises
    ------
    DataError
        There is a single case, which says nothing of how cases vary.
    """
    check_several(changes.gains, "case")
    if not np.isfinite(changes.gains).all():
        return math.nan
    spread = changes.gains.std(ddof=1)
    return float(changes.gains.mean() / spread) if spread > ROUNDING else 0.0


def check_several(values: Sized, kind: str) -> None:
    """Raise a `DataError` where there is one alone."""
    if len(values) < 2:
        raise DataError(f"one {kind} says nothing of how {kind}s vary")


def percentile_interval(means: np.ndarray) -> Interval:
    """Give the middle 95 % of drawn means (n); as p, twice the share on the rarer side of 0.

    One more is counted there than was drawn: no n draws can prove a p below 2 / (n + 1). All
    are NaN where a mean is not finite, as of distances to what was not found.
    """
    if not np.isfinite(means).all():
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(means, (0.025, 0.975))
    p = 2 * (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + len(means))
    return Interval(float(low), float(high), min(float(p), 1.0))


def printed_p(p: float) -> str:
    """Give a p-value to three places; one that would be 0.000 as a bound."""
    return "<0.001" if p < 0.0005 else f"{p:.3f}"
