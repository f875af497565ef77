"""The steps after training, in a row: over a run folder, and for one CT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config, Variant, Windows
from tunet_lib.ensemble import mean_maps
from tunet_lib.evaluation import (
    Row,
    TableRow,
    check_unseen,
    read_scores,
    score_case,
    table_1,
    write_scores,
    write_table,
)
from tunet_lib.files import DataError, load_json
from tunet_lib.kits19 import Case, Scan, ScanFile, find_cases, load_label_scan, require_label
from tunet_lib.postprocess import postprocess, threshold_labels
from tunet_lib.preprocess import (
    PreparedCase,
    grid_for,
    label_from_grid,
    prepare_scan,
)
from tunet_lib.quiet import load_keras
from tunet_lib.runs import OnCase, Run

if TYPE_CHECKING:  # loading TensorFlow takes seconds, and many steps do without it
    import keras

COURSE_WEIGHTS = Path(__file__).parent / "course_weights"


def evaluate_run(
    run: Run, on_case: OnCase | None = None, batch_size: int = 4
) -> tuple[list[Row], dict[str, str]]:
    """Score each case by the models of the fold that held it out.

    Systems are scored as far as their models are there: the ensemble needs the four
    TuNets, and its post-processing both L-Nets as well. Scores are kept case by case, until
    a model or the prepared case is newer than they are.

    Returns
    -------
    rows, failures
        One row for each case and system, written to ``scores.csv``; case_id → reason.

    Raises
    ------
    DataError
        A model saw a case that it would score; or nothing is trained, or nothing could be
        scored.
    """
    rows: list[Row] = []
    failures: dict[str, str] = {}
    prepared = {case.case_id: case for case in run.cases()}
    sources = {case.case_id: case for case in find_cases(run.data)}
    for fold, case_ids in enumerate(run.folds):
        names = [name for name, _ in run.tasks(folds=[fold]) if run.trained((name, fold))]
        _check_models(run, names, fold)
        models: dict[str, keras.Model] = {}
        for case_id in case_ids:
            try:
                scored = _kept_scores(run, prepared[case_id], names, fold)
                if scored is None:
                    source = sources.get(case_id, Case(case_id, None, None))
                    models = models or _load_models(run, names, fold)
                    scored = _score(run, prepared[case_id], source, fold, models, batch_size)
                    write_scores(_scores_path(run, case_id, fold), scored)
                rows += scored
            except (DataError, OSError, MemoryError) as error:
                failures[case_id] = str(error) or type(error).__name__
            if on_case is not None:
                on_case(case_id)
    check_unseen(rows, run.folds)
    if not rows:
        reason = next(iter(failures.values()), "nothing is trained yet; run `tunet train` first")
        raise DataError(f"{run.folder}: nothing could be scored: {reason}")
    write_scores(run.folder / "scores.csv", rows)
    return rows, failures


def systems_of(variants: Iterable[str]) -> list[str]:
    """List the rows of Table 1 that some trained variants make possible."""
    names = list(variants)
    systems = [name for name in names if name not in LOCALIZERS]
    if set(ENSEMBLE) <= set(names):
        systems.append("ensemble")
        if set(LOCALIZERS) <= set(names):
            systems.append("ensemble_postprocess")
    return systems


def tabulate_run(run: Run) -> list[TableRow]:
    """Make Table 1 from the run's scores, and write it as ``table_1.csv``."""
    table = table_1(read_scores(run.folder / "scores.csv"))
    write_table(run.folder / "table_1.csv", table)
    return table


def predict_scan(
    scan: Scan | ScanFile,
    models: str | Path = COURSE_WEIGHTS,
    batch_size: int = 1,
    on_part: Callable[[float], Any] | None = None,
    windows: Windows = "mask",
) -> np.ndarray:
    """Segment one CT: L-Net localizes, every TuNet votes, Algorithm 1 decides.

    Parameters
    ----------
    scan
        The CT; larger than the grid's field of view is fine, nothing is cropped.
    models
        A folder of trained networks, searched in depth: the weights that come with the
        library (trained on phantoms), or ``models/`` of a run.
    batch_size
        Windows at a time.
    on_part
        Called again and again with the share of one model's work done since.
    windows
        Of the TuNets: ``"all"`` of them; those that hold something of L-Net's ``"mask"``; or
        fewer, over the ``"box"`` around it.

    Returns
    -------
    numpy.ndarray
        uint8 label map, the shape of the scan.

    Raises
    ------
    DataError
        `models` holds no TuNet, or networks of different configurations.

    Notes
    -----
    What lies outside L-Net's mask is removed in the end, so windows outside of it need not be
    predicted, and the maps are 0 there. With ``"mask"`` the label map is the same as with
    ``"all"``, unless the maps would have reached the low thresholds out there, and Algorithm 1
    would have acted on it within: by a voxel that ends the search for an unsure region or for
    any tumor at all, by voxels that make a tumor large, or by a bridge between two parts of a
    region. With ``"box"`` it differs a
    little nearly always, for fewer windows see each voxel (chapter 11 measures it).

    Source: Vu et al. 2019, Eq. 4, Algorithm 1 and Fig. 4.
    """
    found = find_models(models)
    config = Config.load(found[0][1] / "config.json")
    load_keras()
    volumes = prepare_scan(scan, config, {variant.median for variant, _ in found})

    def maps(localizers: bool, where: np.ndarray | None = None) -> Iterator[np.ndarray]:
        from tunet_lib.inference import predict_volume
        from tunet_lib.networks import load_model

        for variant, folder in found:
            if (variant.network == "lnet") == localizers:
                model, _ = load_model(folder, config)
                volume = volumes[variant.median]
                yield predict_volume(
                    model, variant, volume, config, batch_size, on_part, where, windows == "box"
                )

    has_localizer = any(variant.network == "lnet" for variant, _ in found)
    lnet_prob = mean_maps(maps(localizers=True))[..., 0] if has_localizer else None
    where = None if lnet_prob is None or windows == "all" else lnet_prob >= config.lnet_threshold
    if where is not None and not where.any():
        where = None  # an empty mask is not applied either
    whole_and_tumor = mean_maps(maps(localizers=False, where=where))
    if where is not None:
        whole_and_tumor[~where] = 0  # there the mean would be of fewer windows
    label = _decide(whole_and_tumor, lnet_prob, config)
    grid = grid_for(scan.shape, scan.spacing_mm, config)
    return label_from_grid(label, grid, scan.shape, scan.spacing_mm)


def find_models(folder: str | Path) -> list[tuple[Variant, Path]]:
    """Find the trained TuNets and L-Nets below a folder.

    Raises
    ------
    DataError
        There is no TuNet, or their configurations differ.
    """
    found = []
    for path in sorted(Path(folder).rglob("model.weights.h5")):
        name = load_json(path.parent / "variant.json")
        variant = VARIANTS.get(name) if isinstance(name, str) else None
        if variant is not None and variant.network in ("tunet", "lnet"):
            found.append((variant, path.parent))
    if not any(variant.network == "tunet" for variant, _ in found):
        raise DataError(f"{folder}: holds no trained TuNet; name the folder models/ of a run")
    first = Config.load(found[0][1] / "config.json")
    for _, path in found[1:]:
        if wrong := first.differences(Config.load(path / "config.json")):
            raise DataError(
                f"{path}: was trained with another configuration than {found[0][1]} "
                f"({', '.join(wrong)} differ); keep the models of each in a folder of their own"
            )
    return found


def _decide(
    whole_and_tumor: np.ndarray, lnet_prob: np.ndarray | None, config: Config
) -> np.ndarray:
    return postprocess(
        whole_and_tumor[..., 0],
        whole_and_tumor[..., 1],
        config,
        lnet_mask=None if lnet_prob is None else lnet_prob >= config.lnet_threshold,
        voxel_volume_mm3=math.prod(config.grid_spacing_mm),
    )


def _check_models(run: Run, names: Sequence[str], fold: int) -> None:
    """Make sure, by what each training wrote down, that it saw no case of its fold."""
    for name in names:
        if seen := set(run.seen((name, fold))) & set(run.folds[fold]):
            raise DataError(
                f"{run.model_folder(name, fold)}: was trained on {', '.join(sorted(seen))}, which "
                f"fold {fold} holds out; remove it and train again"
            )


def _scores_path(run: Run, case_id: str, fold: int) -> Path:
    return run.folder / "scores" / f"fold_{fold}" / f"{case_id}.csv"


def _kept_scores(run: Run, case: PreparedCase, names: Sequence[str], fold: int) -> list[Row] | None:
    """Read what an earlier evaluation scored, if it is all there and up to date."""
    if not systems_of(names):
        return []
    path = _scores_path(run, case.case_id, fold)
    made_from = [case.folder / "case.json"]
    made_from += [run.model_folder(name, fold) / "model.weights.h5" for name in names]
    if not path.exists() or path.stat().st_mtime < max(p.stat().st_mtime for p in made_from):
        return None
    rows = read_scores(path)
    return rows if [row["system"] for row in rows] == systems_of(names) else None


def _score(
    run: Run,
    case: PreparedCase,
    source: Case,
    fold: int,
    models: dict[str, keras.Model],
    batch_size: int,
) -> list[Row]:
    """Score every system that the models make possible on one case."""
    labels = _predict_systems(run, case, models, batch_size)
    truth = load_label_scan(require_label(source)).volume_hu
    rows = []
    for system, label in labels.items():
        native = label_from_grid(label, case.grid, case.source_shape, case.spacing_mm)
        # Surfaces take seconds at full size: only the system that is handed in gets them.
        spacing_mm = case.spacing_mm if system == "ensemble_postprocess" else None
        true_grid = np.asarray(case.label())
        rows.append(
            score_case(system, fold, case.case_id, label, true_grid, native, truth, spacing_mm)
        )
    return rows


def _predict_systems(
    run: Run, case: PreparedCase, models: dict[str, keras.Model], batch_size: int
) -> dict[str, np.ndarray]:
    """Give the label map on the grid of each system that the models make possible."""
    from tunet_lib.inference import predict_volume

    labels: dict[str, np.ndarray] = {}
    volumes = {
        median: np.asarray(case.volume(median), np.float32)
        for median in {VARIANTS[name].median for name in models}
    }

    def predict(name: str) -> np.ndarray:
        variant = VARIANTS[name]
        volume = volumes[variant.median]
        return predict_volume(models[name], variant, volume, run.config, batch_size)

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
        lnet_prob = mean_maps(predict(name) for name in LOCALIZERS)[..., 0]
        labels["ensemble_postprocess"] = _decide(mean, lnet_prob, run.config)
    for name in set(systems) - set(labels):
        labels[name] = threshold(predict(name))
    return {system: labels[system] for system in systems}


def _load_models(run: Run, names: Sequence[str], fold: int) -> dict[str, keras.Model]:
    load_keras()
    from tunet_lib.networks import load_model

    return {name: load_model(run.model_folder(name, fold), run.config)[0] for name in names}
