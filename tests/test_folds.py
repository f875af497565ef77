from types import SimpleNamespace

import pytest

from tunet_lib.files import DataError
from tunet_lib.folds import split_cases, split_folds

CASES = [SimpleNamespace(case_id=f"case_{i:05d}") for i in range(23)]
CASE_IDS = [case.case_id for case in CASES]


def test_every_case_in_exactly_one_fold():
    folds = split_folds(CASE_IDS, 5, seed=2019)
    assert sorted(case_id for fold in folds for case_id in fold) == CASE_IDS
    assert [len(fold) for fold in folds] == [5, 5, 5, 4, 4]


def test_kits19_has_42_cases_a_fold():
    folds = split_folds([f"case_{i:05d}" for i in range(210)], 5, seed=2019)
    assert [len(fold) for fold in folds] == [42] * 5


def test_the_seed_decides_and_the_order_does_not():
    folds = split_folds(CASE_IDS, 5, seed=1)
    assert split_folds(CASE_IDS[::-1], 5, seed=1) == folds
    assert split_folds(CASE_IDS, 5, seed=2) != folds


def test_the_deal_is_a_shuffle():
    assert split_folds(CASE_IDS, 5, seed=2019)[0] != CASE_IDS[::5]


def test_a_case_named_twice():
    with pytest.raises(DataError, match="twice"):
        split_folds([*CASE_IDS, CASE_IDS[3]], 5, seed=1)


def test_too_few_cases():
    assert split_folds(CASE_IDS[:3], 3, seed=1)
    with pytest.raises(DataError, match="2 cases cannot be split into 3 folds"):
        split_folds(CASE_IDS[:2], 3, seed=1)
    for folds in (0, -2):
        with pytest.raises(DataError, match=f"split into {folds} folds"):
            split_folds(CASE_IDS[:2], folds, seed=1)


@pytest.mark.parametrize("fold", range(5))
def test_as_in_the_paper_early_stopping_looks_at_the_scored_fold(fold):
    folds = split_folds(CASE_IDS, 5, seed=1)
    split = split_cases(CASES, folds, fold)
    assert split.fold == fold
    assert [case.case_id for case in split.validation] == folds[fold]
    assert [c.case_id for c in split.training] == sorted(set(CASE_IDS) - set(folds[fold]))


@pytest.mark.parametrize("fold", range(5))
def test_inner_validation_leaves_the_scored_fold_alone(fold):
    folds = split_folds(CASE_IDS, 5, seed=1)
    split = split_cases(CASES, folds, fold, inner=True)
    assert split.fold == fold
    seen = {case.case_id for case in [*split.training, *split.validation]}
    assert not seen & set(folds[fold])
    others = sorted(set(CASE_IDS) - set(folds[fold]))
    assert [case.case_id for case in split.validation] == others[::8]
    assert seen | set(folds[fold]) == set(CASE_IDS)
    assert not {c.case_id for c in split.training} & {c.case_id for c in split.validation}


def test_cases_of_no_fold_are_not_trained_on():
    # Cases without a label map are in no fold.
    folds = split_folds(CASE_IDS[:20], 5, seed=1)
    split = split_cases(CASES, folds, 0)
    assert {case.case_id for case in split.training} <= set(CASE_IDS[:20])
