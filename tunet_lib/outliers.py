"""Trainings that went wrong without an error: seen by their loss, named, and repeated by rule.

Of many trainings one may end in a bad corner, and a mean over folds would hide it. The rule is
fixed beforehand and looks at validation losses alone: a training whose best one is worse than the
median of the same network's other folds by more than `WORSE_BY` is repeated once, with another
seed, and the second one counts, whatever it gives. Its first history stays beside it.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import statistics

from tunet_lib.files import DataError
from tunet_lib.history import read_history
from tunet_lib.model_folder import ModelFolder
from tunet_lib.runs import Run, Task

WORSE_BY = 0.25  # of a Dice; folds differ by up to 0.19 because their cases do
FEWEST = 3  # other folds, below which a median says little


def outliers(run: Run) -> dict[Task, str]:
    """Find the complete trainings that went wrong.

    Returns
    -------
    dict
        Task → a sentence with its loss and the others'.

    Raises
    ------
    DataError
        A history is damaged, or there is none beside the weights.
    """
    best = {
        task: _best_loss(folder)
        for task in run.tasks()
        if (folder := run.model_folder(task)).is_trained
    }
    found = {}
    for (name, fold), loss in best.items():
        others = [best[other] for other in best if other[0] == name and other[1] != fold]
        if len(others) < FEWEST or loss <= statistics.median(others) + WORSE_BY:
            continue
        found[name, fold] = (
            f"its best validation loss is {loss:.2f}, that of the other folds "
            f"{statistics.median(others):.2f} in the middle"
        )
    return found


def to_repeat(run: Run) -> list[Task]:
    """List the outliers that the rule has not repeated yet.

    None where the fold that is scored is also the one that validates: to repeat a training for
    its loss there would be to choose by the score.
    """
    if not run.config.inner_validation:
        return []
    return [task for task in outliers(run) if not _is_second(run.model_folder(task))]


def start_anew(run: Run, task: Task) -> None:
    """Make an outlier a training that is still to be done, with another seed.

    Raises
    ------
    DataError
        The folder cannot be written.
    """
    folder = run.model_folder(task)
    folder.keep_first_history()
    folder.checkpoint.unlink(missing_ok=True)  # a kill may have left the first attempt's
    folder.weights.unlink(missing_ok=True)


def _is_second(folder: ModelFolder) -> bool:
    # The same history twice: a kill came before the first weights were gone.
    return folder.attempt > 1 and read_history(folder.first_history_path) != folder.history()


def _best_loss(folder: ModelFolder) -> float:
    if not (history := folder.history()):
        raise DataError(
            f"{folder.history_path}: is missing or empty; remove the folder to train again"
        )
    return min(log["val_loss"] for log in history)
