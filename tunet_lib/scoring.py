"""Every case of a run scored, by the networks of the fold that held it out.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import functools
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config
from tunet_lib.ensemble import mean_maps
from tunet_lib.evaluation import (
    STEPS,
    SYSTEMS,
    Row,
    check_unseen,
    read_scores,
    score_case,
    write_scores,
)
from tunet_lib.files import DataError, DataWarning, load_json, noting, save_json, sha256_of
from tunet_lib.kits19 import Case, require_label
from tunet_lib.localization import lnet_mask
from tunet_lib.mistakes import tumor_figures
from tunet_lib.origin import sources_of
from tunet_lib.parallel import KilledError, each
from tunet_lib.placement import Placement
from tunet_lib.postprocess import merge, postprocess, threshold_labels, whole_region
from tunet_lib.preprocess import PreparedCase
from tunet_lib.runs import OnCase, Run
from tunet_lib.scans import load_label
from tunet_lib.table import TableRow, table_1, write_table

if TYPE_CHECKING:  # loading TensorFlow takes seconds, and scores that are kept do without it
    from tunet_lib.model import Model
    from tunet_lib.model_folder import ModelFolder

MADE_FROM_NAME = "made_from.json"


def evaluate_run(
    run: Run, *, jobs: int = 1, batch_size: int = 4, on_case: OnCase | None = None
) -> tuple[list[Row], dict[str, str]]:
    """Score each case by the models of the fold that held it out.

    Systems are scored as far as their models are there: the ensemble needs the four
    TuNets, and its post-processing both L-Nets as well. Scores are kept case by case, until
    a model of their fold, the case or the run's configuration is another: thresholds of
    Algorithm 1 may be chosen when the trainings are over.

    Parameters
    ----------
    run
        Prepared, and trained in part at least.
    jobs
        Folds at a time, each in a process of its own.
    batch_size
        Windows predicted at a time.
    on_case
        Called with the case_id after each case; with several jobs, after each fold.

    Returns
    -------
    rows, failures
        One row for each case and system of Table 1, written to ``scores.csv``, and below them
        those of the steps of Algorithm 1, written to ``algorithm_1.csv``; case_id → reason.

    Raises
    ------
    DataError
        A model saw a case that it would score; or nothing is trained, or nothing could be
        scored.
    """
    rows: list[Row] = []
    failures: dict[str, str] = {}
    _forget_other_scores(run)
    folds = range(len(run.folds))
    if jobs > 1:
        task = functools.partial(evaluate_fold, run, batch_size)
        results = {}
        for fold, result in each(task, folds, jobs):
            try:
                results[fold] = result()
            except KilledError as error:  # the others' scores are there all the same
                results[fold] = [], dict.fromkeys(run.folds[fold], str(error))
            for case_id in run.folds[fold]:
                if on_case is not None:
                    on_case(case_id)
    else:
        networks: dict[str, Any] = {}
        results = {
            fold: evaluate_fold(run, batch_size, fold, networks=networks, on_case=on_case)
            for fold in folds
        }
    for fold in folds:
        rows += results[fold][0]
        failures |= results[fold][1]
    check_unseen(rows, run.folds)
    if not rows:
        reason = next(iter(failures.values()), "nothing is trained yet; run `tunet train` first")
        raise DataError(f"{run.folder}: nothing could be scored: {reason}")
    write_scores(run.folder / "scores.csv", [row for row in rows if row["system"] in SYSTEMS])
    write_scores(run.folder / "algorithm_1.csv", [row for row in rows if row["system"] in STEPS])
    return rows, failures


def _forget_other_scores(run: Run) -> None:
    made_with = run.folder / "scores" / "config.json"
    if made_with.exists():
        if Config.load(made_with) == run.config:
            return
        for task in run.tasks():  # it may be the new configuration that is wrong
            run.model_folder(task).check_config(run.config)
    shutil.rmtree(made_with.parent, ignore_errors=True)
    run.config.save(made_with)


def evaluate_fold(
    run: Run,
    batch_size: int,
    fold: int,
    *,
    networks: dict[str, Any] | None = None,
    on_case: OnCase | None = None,
) -> tuple[list[Row], dict[str, str]]:
    """Score the cases of one fold; parameters and results are as in `evaluate_run`.

    `networks` are those of `FoldScores`.
    """
    rows: list[Row] = []
    failures: dict[str, str] = {}
    prepared = {case.case_id: case for case in run.cases()}
    sources = run.sources()
    scored = FoldScores(run, fold, batch_size, networks=networks)
    for case_id in run.folds[fold]:
        with noting(failures, case_id):
            source = sources.get(case_id, Case(case_id, None, None))
            rows += scored.of(prepared[case_id], source)
        if on_case is not None:
            on_case(case_id)
    return rows, failures


def systems_of(variants: Iterable[str]) -> list[str]:
    """List the systems of Table 1 and the steps of Algorithm 1 that some variants make possible."""
    names = list(variants)
    systems = [name for name in names if name not in LOCALIZERS]
    if set(ENSEMBLE) <= set(names):
        systems.append("ensemble")
        if set(LOCALIZERS) <= set(names):
            systems += [step for step in STEPS if step != "ensemble"]
    return systems


def label_systems(
    models: Mapping[str, Model],
    volumes: Mapping[bool, np.ndarray],
    config: Config,
    *,
    batch_size: int = 4,
) -> dict[str, np.ndarray]:
    """Give the label map on the grid of each system that some models make possible.

    Parameters
    ----------
    models
        Name of a variant → its network.
    volumes
        Median filtered or not → normalized grid volume (z, y, x).
    config
        The thresholds of Algorithm 1.
    batch_size
        Windows predicted at a time.

    Returns
    -------
    dict
        System → uint8 (z, y, x), in the order of `systems_of`.
    """
    labels: dict[str, np.ndarray] = {}

    def predict(name: str) -> np.ndarray:
        return models[name].predict(volumes, batch_size=batch_size)

    def threshold(maps: np.ndarray) -> np.ndarray:
        return threshold_labels(maps[..., 0], maps[..., 1])

    def voters() -> Iterator[np.ndarray]:
        for name in ENSEMBLE:
            maps = predict(name)
            labels[name] = threshold(maps)
            yield maps
            del maps  # or it would still be here while the next one is made

    systems = systems_of(models)
    if "ensemble" in systems:
        mean = mean_maps(voters())
        labels["ensemble"] = threshold(mean)
    if "ensemble_postprocess" in systems:
        whole_prob, tumor_prob = mean[..., 0], mean[..., 1]
        whole = whole_region(whole_prob, config)
        labels["line_9"] = merge(whole, tumor_prob >= config.high_threshold)
        labels["line_27"] = postprocess(whole_prob, tumor_prob, config)
        lnet_prob = mean_maps(predict(name) for name in LOCALIZERS)[..., 0]
        labels["ensemble_postprocess"] = postprocess(
            whole_prob, tumor_prob, config, lnet_mask=lnet_mask(lnet_prob, config)
        )
    for name in set(systems) - set(labels):
        labels[name] = threshold(predict(name))
    return {system: labels[system] for system in systems}


def tabulate_run(run: Run) -> list[TableRow]:
    """Make Table 1 from the run's scores, and write it as ``table_1.csv``.

    Warns
    -----
    DataWarning
        It cannot be written there, as in a run of somebody else's.
    """
    table = table_1(read_scores(run.folder / "scores.csv"))
    try:
        write_table(run.folder / "table_1.csv", table)
    except DataError as error:
        warnings.warn(str(error), DataWarning, stacklevel=2)
    return table


def unscored(run: Run) -> list[str]:
    """List the systems, ``"tunet, fold 1"``, that are trained and lack scores of some case.

    Scores that other weights than today's gave are none of it.
    """
    rows = read_scores(run.folder / "scores.csv")
    scored, found = {(row["system"], row["case_id"]) for row in rows}, []
    for fold, case_ids in enumerate(run.folds):
        made_from = _made_from(run, fold)
        digests = {name: sha256_of(folder.weights) for name, folder in _trained(run, fold).items()}
        # Without a note, as of an earlier version, nothing is known to be old.
        is_old = made_from is not None and made_from["weights"] != digests
        for system in systems_of(digests):
            lacks_some = not scored.issuperset((system, case_id) for case_id in case_ids)
            if system in SYSTEMS and (is_old or lacks_some):
                found.append(f"{system}, fold {fold}")
    return found


def _trained(run: Run, fold: int) -> dict[str, ModelFolder]:
    folders = {name: run.model_folder((name, fold)) for name, _ in run.tasks(folds=[fold])}
    return {name: folder for name, folder in folders.items() if folder.is_trained}


def _made_from(run: Run, fold: int) -> dict[str, Any] | None:
    """Read what a fold's scores are of, as digests; None if that is not known."""
    try:
        noted = load_json(_scores_folder(run, fold) / MADE_FROM_NAME)
        return {name: dict(noted[name]) for name in ("weights", "cases")}
    except (DataError, KeyError, TypeError, ValueError):
        return None


def _scores_folder(run: Run, fold: int) -> Path:
    return run.folder / "scores" / f"fold_{fold}"


class FoldScores:
    """The scores of one fold's cases, kept in files; its networks are loaded when needed.

    Parameters
    ----------
    run, fold
        Which cases and networks.
    batch_size
        Windows predicted at a time.
    networks
        Variant → what an earlier fold built for it, which takes the weights of this one.

    Raises
    ------
    DataError
        A network saw a case of its fold, by what its training wrote down.
    """

    def __init__(
        self, run: Run, fold: int, batch_size: int, *, networks: dict[str, Any] | None = None
    ) -> None:
        self.run, self.fold, self.batch_size = run, fold, batch_size
        self.networks = {} if networks is None else networks
        self.folders = _trained(run, fold)
        self._models: dict[str, Model] = {}
        self._weights = {name: sha256_of(each.weights) for name, each in self.folders.items()}
        noted = _made_from(run, fold)
        self._cases = noted["cases"] if noted and noted["weights"] == self._weights else {}
        for folder in self.folders.values():
            if seen := set(folder.seen()) & set(run.folds[fold]):
                raise DataError(
                    f"{folder.path}: was trained on {', '.join(sorted(seen))}, which "
                    f"fold {fold} holds out; remove it and train again"
                )

    def of(self, case: PreparedCase, source: Case) -> list[Row]:
        """Give the scores of every system that is trained, on one case."""
        kept = self._kept(case)
        if kept is not None:
            return kept
        medians = {VARIANTS[name].median for name in self.folders}
        volumes = {m: np.asarray(case.volume(m), np.float32) for m in medians}
        config = self.run.config
        labels = label_systems(self.models(), volumes, config, batch_size=self.batch_size)
        true_native = load_label(require_label(source), cyst_as_kidney=source.cyst_as_kidney)
        true_grid = np.asarray(case.label())
        placement = Placement(case, config)
        rows = [
            score_case(
                system,
                self.fold,
                case.case_id,
                grid=(label, true_grid),
                native=(placement.label_from_grid(label), true_native),
                # Surfaces take seconds at full size: only the system that is handed in gets them.
                spacing_mm=case.spacing_mm if system == "ensemble_postprocess" else None,
            )
            | tumor_figures(label, true_grid, config.grid_spacing_mm)
            for system, label in labels.items()
        ]
        # Whatever stops it from here on, what is there is not taken for this case's scores.
        self._note(case.case_id, None)
        write_scores(self._path(case), rows)
        self._note(case.case_id, sources_of(case.folder))
        return rows

    def models(self) -> dict[str, Model]:
        """Load the fold's networks, once."""
        from tunet_lib.model import Model

        if not self._models:
            loaded = {}
            for name, folder in self.folders.items():
                folder.check_config(self.run.config)
                loaded[name] = Model.load(folder.path, network=self.networks.get(name))
                self.networks[name] = loaded[name].network
            self._models = loaded  # all of them, or none
        return self._models

    def _path(self, case: PreparedCase) -> Path:
        return _scores_folder(self.run, self.fold) / f"{case.case_id}.csv"

    def _note(self, case_id: str, sources: dict[str, Any] | None) -> None:
        """Write down what the scores of a case are of."""
        self._cases |= {case_id: sources}
        path = _scores_folder(self.run, self.fold) / MADE_FROM_NAME
        save_json(path, {"weights": self._weights, "cases": self._cases})

    def _kept(self, case: PreparedCase) -> list[Row] | None:
        """Read what an earlier evaluation scored, if it is all there and up to date."""
        if not systems_of(self.folders):
            return []
        if self._cases.get(case.case_id) != sources_of(case.folder):
            return None
        try:
            rows = read_scores(self._path(case))
        except DataError:  # damaged, or of an earlier version: it is scored anew
            return None
        return rows if [row["system"] for row in rows] == systems_of(self.folders) else None
