import numpy as np
import pytest
from scipy import stats

from tunet_lib.comparison import (
    Changes,
    corrected_t,
    effect_size,
    holm,
    pair_cases,
    resample_cases,
    resample_folds,
)
from tunet_lib.files import DataError


def row(system, fold, case_id, tumor):
    return {"system": system, "fold": fold, "case_id": case_id, "grid_tumor": tumor}


def changes(gains_by_fold):
    gains = [gain for gains in gains_by_fold for gain in gains]
    folds = [fold for fold, gains in enumerate(gains_by_fold) for _ in gains]
    return Changes([str(k) for k in range(len(gains))], np.array(folds), np.array(gains))


def test_scores_are_paired_by_case_and_those_without_a_partner_left_out():
    rows = [
        row("unet3d", 0, "case_00001", 0.3),
        row("tunet", 0, "case_00001", 0.5),
        row("tunet", 1, "case_00000", 0.2),
        row("unet3d", 1, "case_00000", 0.6),
        row("unet3d", 1, "case_00002", 0.6),
        row("tunet", 1, "case_00003", None),
        row("ensemble", 1, "case_00002", 0.9),
    ]
    paired = pair_cases(rows, "unet3d", "tunet")
    assert paired.case_ids == ["case_00000", "case_00001"]
    assert paired.folds.tolist() == [1, 0]
    assert paired.gains == pytest.approx([-0.4, 0.2])
    assert paired.fold_means() == pytest.approx([0.2, -0.4])  # in the order of the folds
    with pytest.raises(DataError, match="no case has grid_tumor of both tunet and unet2d"):
        pair_cases(rows, "tunet", "unet2d")
    with pytest.raises(DataError, match="case_00001 has two scores of unet3d"):
        pair_cases([*rows, row("unet3d", 2, "case_00001", 0.9)], "unet3d", "tunet")


def test_one_case_and_one_fold_prove_nothing():
    with pytest.raises(DataError, match="one case"):
        resample_cases(changes([[0.1]]))
    with pytest.raises(DataError, match="one fold"):
        resample_folds(changes([[0.1, 0.2, 0.1]]))


def test_gains_that_are_not_finite_have_no_interval():
    infinite = changes([[0.1, np.inf], [-np.inf, 0.2]])
    for drawn in (resample_cases(infinite), resample_folds(infinite)):
        assert np.isnan(drawn).all()


def test_drawing_cases_agrees_with_the_theory_of_the_mean():
    gains = np.random.default_rng(0).normal(0.02, 0.1, 80)
    interval = resample_cases(changes(gains.reshape(5, 16)))
    theory = stats.t.interval(0.95, 79, gains.mean(), stats.sem(gains))
    assert (interval.low, interval.high) == pytest.approx(theory, abs=0.003)
    assert interval.p == pytest.approx(stats.ttest_1samp(gains, 0).pvalue, abs=0.02)


def test_trainings_that_differ_widen_the_interval_over_folds_only():
    rng = np.random.default_rng(1)
    lucky = changes([rng.normal(luck, 0.05, 16) for luck in (0.2, -0.2, 0.1, -0.1, 0.15)])
    same = changes([rng.normal(0.03, 0.05, 16) for _ in range(5)])

    def width(interval):
        return interval.high - interval.low

    assert width(resample_folds(lucky)) > 2 * width(resample_cases(lucky))
    assert width(resample_folds(same)) < 2 * width(resample_cases(same))


def test_the_corrected_t_by_hand():
    # Variance 2.5, error sqrt((1/5 + 1/4) * 2.5) = 1.0607, t = 3 / 1.0607 = 2.828
    interval = corrected_t([1, 2, 3, 4, 5])
    assert interval.p == pytest.approx(0.04742, abs=1e-4)
    assert (interval.low, interval.high) == pytest.approx((0.0551, 5.9449), abs=1e-3)
    assert np.isnan(corrected_t([0.25, 0.25, 0.25])).all()
    assert corrected_t([0.0, 0.0]) == (0, 0, 1)
    with pytest.raises(DataError, match="3 folds were scored, of 2"):
        corrected_t([1, 2, 3], of_folds=2)
    with pytest.raises(DataError, match="one fold says"):
        corrected_t([0.3])


def test_the_corrected_t_holds_its_promise_where_the_plain_one_does_not():
    # Five folds of variance 1, correlated by what the correction assumes: by the share of the
    # cases that is held out, 1/5.
    rng = np.random.default_rng(2)
    common = rng.normal(0, np.sqrt(0.2), (2000, 1))
    studies = common + rng.normal(0, np.sqrt(0.8), (2000, 5))
    corrected = np.mean([corrected_t(study).p < 0.05 for study in studies])
    plain = np.mean(stats.ttest_1samp(studies, 0, axis=1).pvalue < 0.05)
    assert 0.03 < corrected < 0.07
    assert plain > 2 * corrected


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.03]) == pytest.approx([0.03])
    assert len(holm([])) == 0


def test_holm_finds_something_in_noise_once_in_twenty():
    noise = np.random.default_rng(3).uniform(size=(4000, 14))
    assert np.mean((noise < 0.05).any(axis=1)) > 0.5
    assert 0.04 < np.mean([(holm(p) < 0.05).any() for p in noise]) < 0.06


def test_the_effect_is_in_sds_of_the_gains():
    assert effect_size(changes([[1.0, 3.0], [1.0, 3.0]])) == pytest.approx(2 / np.sqrt(4 / 3))
    assert effect_size(changes([[0.5, 0.5]])) == 0
    assert np.isnan(effect_size(changes([[-20.0, np.inf, -22.0]])))  # a tumor that was not found
    assert effect_size(changes([[0.1] * 3])) == 0  # their SD is 1e-17, by rounding
    with pytest.raises(DataError, match="one case"):
        effect_size(changes([[0.5]]))


def test_a_case_of_two_folds_is_no_pair():
    rows = [row("tunet", 0, "a", 0.5), row("ensemble", 1, "a", 0.6)]
    with pytest.raises(DataError, match="a is of two folds"):
        pair_cases(rows, "tunet", "ensemble")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_gains_of_nothing_but_rounding_are_nothing_in_any_order(order):
    gains = np.array([0.0, 0.0, -9.25e-18])[list(order)]
    assert corrected_t(gains) == (0.0, 0.0, 1.0)
