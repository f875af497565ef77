"""Patients dealt into folds.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunet_lib.files import DataError

INNER_STEP = 8  # one training case of so many chooses the best epoch, if the scored fold must not


def split_folds(case_ids: Sequence[str], folds: int, seed: int) -> list[list[str]]:
    """Deal patients into folds; in KiTS19 a case is a patient.

    Parameters
    ----------
    case_ids
        Each once, in any order: the split depends on the set and the seed only.
    folds
        How many; their sizes differ by one at most.
    seed
        Of the shuffle.

    Raises
    ------
    DataError
        There are no folds, or fewer cases than folds; or one is named twice.
    """
    ordered = sorted(case_ids)
    if len(set(ordered)) != len(ordered):
        raise DataError("a case is named twice; each patient may be in one fold only")
    if not 0 < folds <= len(ordered):
        raise DataError(f"{len(ordered)} cases cannot be split into {folds} folds")
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    return [sorted(shuffled[fold::folds]) for fold in range(folds)]


@dataclass(frozen=True)
class Split:
    """The cases of one fold: those to train on, and those whose loss is watched meanwhile.

    They are prepared cases, or anything else with a `case_id`.
    """

    fold: int
    training: Sequence[Any]
    validation: Sequence[Any]


def split_cases(
    cases: Sequence[Any], folds: Sequence[Sequence[str]], fold: int, *, inner: bool = False
) -> Split:
    """Give the training and the validation cases of one fold.

    A case that is in no fold, for want of a label map, is in neither.

    Parameters
    ----------
    cases
        All of them.
    folds
        For each fold the `case_id` of the cases it holds out.
    fold
        Which one, from 0.
    inner
        As in the paper the fold that is scored is also what early stopping looks at, which is
        optimistic; with `inner` every `INNER_STEP`-th of the other cases is taken for that and
        left out of training.
    """
    held_out = set(folds[fold])
    others = {case_id for ids in folds for case_id in ids} - held_out
    watched = set(sorted(others)[::INNER_STEP]) if inner else held_out
    training = [case for case in cases if case.case_id in others - watched]
    return Split(fold, training, [case for case in cases if case.case_id in watched])
