"""The steps after training, in a row: over a run folder, and for one CT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config, Variant
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
from tunet_lib.kits19 import Scan, find_cases, load_label_scan, require_label
from tunet_lib.postprocess import postprocess, threshold_labels
from tunet_lib.preprocess import (
    PreparedCase,
    grid_for,
    label_from_grid,
    load_prepared,
    prepare_volume,
)
from tunet_lib.runs import OnCase, Run

if TYPE_CHECKING:  # loading TensorFlow takes seconds, and many steps do without it
    import keras

COURSE_WEIGHTS = Path(__file__).parent / "course_weights"


def evaluate_run(
    run: Run, on_case: OnCase | None = None, batch_size: int = 4
) -> tuple[list[Row], dict[str, str]]:
    """Score each case by the models of the fold that held it out.

    Systems are scored as far as their models are there: the ensemble needs the four
    TuNets, and its post-processing the L-Nets as well.

    Returns
    -------
    rows, failures
        One row for each case and system, written to ``scores.csv``; case_id → reason.
    """
    rows: list[Row] = []
    failures: dict[str, str] = {}
    cases = {case.case_id: case for case in load_prepared(run.prepared, run.config)}
    for fold, case_ids in enumerate(run.folds):
        names = [name for name, _ in run.tasks(folds=[fold]) if run.trained((name, fold))]
        models: dict[str, keras.Model] = {}
        for case_id in case_ids if names else []:
            path = run.folder / "scores" / f"fold_{fold}" / f"{case_id}.csv"
            try:
                scored = read_scores(path) if path.exists() else []
                if {row["system"] for row in scored} != set(systems_of(names)):
                    models = models or _load_models(run, names, fold)
                    scored = _score(run, cases[case_id], fold, models, batch_size)
                    write_scores(path, scored)
                rows += scored
            except DataError as error:
                failures[case_id] = str(error)
            if on_case is not None:
                on_case(case_id)
    check_unseen(rows, run.folds)
    if not rows:
        raise DataError(f"{run.folder}: nothing is trained yet; run `tunet train` first")
    write_scores(run.folder / "scores.csv", rows)
    return rows, failures


def systems_of(variants: Iterable[str]) -> list[str]:
    """List the rows of Table 1 that some trained variants make possible."""
    names = list(variants)
    systems = [name for name in names if name not in LOCALIZERS]
    if set(ENSEMBLE) <= set(names):
        systems.append("ensemble")
        if set(LOCALIZERS) & set(names):
            systems.append("ensemble_postprocess")
    return systems


def tabulate_run(run: Run) -> list[TableRow]:
    """Make Table 1 from the run's scores, and write it as ``table_1.csv``."""
    table = table_1(read_scores(run.folder / "scores.csv"))
    write_table(run.folder / "table_1.csv", table)
    return table


def predict_scan(
    scan: Scan,
    models: str | Path = COURSE_WEIGHTS,
    batch_size: int = 1,
    on_model: Callable[[str], Any] | None = None,
) -> np.ndarray:
    """Segment one CT: every TuNet votes, L-Net localizes, Algorithm 1 decides.

    Parameters
    ----------
    scan
        The CT; larger than the grid's field of view is fine, nothing is cropped.
    models
        A folder of trained networks, searched in depth: the weights that come with the
        library (trained on phantoms), or ``models/`` of a run.
    batch_size
        Windows at a time.
    on_model
        Called with a model's folder name after its prediction.

    Returns
    -------
    numpy.ndarray
        uint8 label map, the shape of ``scan.volume_hu``.

    Raises
    ------
    DataError
        `models` holds no TuNet, or networks of different configurations.

    Notes
    -----
    Source: Vu et al. 2019, Eq. 4, Algorithm 1 and Fig. 4.
    """
    found = find_models(models)
    config = Config.load(found[0][1] / "config.json")
    volumes = {
        median: prepare_volume(scan.volume_hu, scan.spacing_mm, config, median)
        for median in {variant.median for variant, _ in found}
    }

    def maps(localizers: bool) -> Iterator[np.ndarray]:
        from tunet_lib.inference import predict_volume
        from tunet_lib.networks import load_model

        for variant, folder in found:
            if (variant.network == "lnet") == localizers:
                model, _ = load_model(folder, config)
                yield predict_volume(model, variant, volumes[variant.median], config, batch_size)
                if on_model is not None:
                    on_model(folder.name)

    whole_and_tumor = mean_maps(maps(localizers=False))
    has_localizer = any(variant.network == "lnet" for variant, _ in found)
    lnet_prob = mean_maps(maps(localizers=True))[..., 0] if has_localizer else None
    label = _decide(whole_and_tumor, lnet_prob, config)
    grid = grid_for(scan.volume_hu.shape, scan.spacing_mm, config)
    return label_from_grid(label, grid, scan.volume_hu.shape, scan.spacing_mm)


def find_models(folder: str | Path) -> list[tuple[Variant, Path]]:
    """Find the TuNets and L-Nets below a folder.

    Raises
    ------
    DataError
        There is no TuNet, or their configurations differ.
    """
    found = []
    for path in sorted(Path(folder).rglob("variant.json")):
        variant = VARIANTS.get(load_json(path))
        if variant is not None and variant.network in ("tunet", "lnet"):
            found.append((variant, path.parent))
    if not any(variant.network == "tunet" for variant, _ in found):
        raise DataError(f"{folder}: holds no trained TuNet; train one, or leave --models out")
    first = Config.load(found[0][1] / "config.json")
    for _, path in found[1:]:
        if wrong := first.differences(Config.load(path / "config.json")):
            raise DataError(f"{path}: was trained with another configuration ({wrong} differ)")
    return found


def _decide(
    whole_and_tumor: np.ndarray, lnet_prob: np.ndarray | None, config: Config
) -> np.ndarray:
    mask = None if lnet_prob is None else lnet_prob >= config.lnet_threshold
    voxel_mm3 = math.prod(config.grid_spacing_mm)
    return postprocess(
        whole_and_tumor[..., 0],
        whole_and_tumor[..., 1],
        config,
        lnet_mask=mask,
        voxel_volume_mm3=voxel_mm3,
    )


def _score(
    run: Run, case: PreparedCase, fold: int, models: dict[str, keras.Model], batch_size: int
) -> list[Row]:
    """Score every system that the models make possible on one case."""
    from tunet_lib.inference import predict_volume

    labels: dict[str, np.ndarray] = {}

    def predict(name: str) -> np.ndarray:
        variant = VARIANTS[name]
        volume = np.asarray(case.volume(variant.median), np.float32)
        return predict_volume(models[name], variant, volume, run.config, batch_size)

    def voters() -> Iterator[np.ndarray]:
        for name in ENSEMBLE:
            maps = predict(name)
            labels[name] = threshold_labels(maps[..., 0], maps[..., 1])
            yield maps

    systems = systems_of(models)
    for name in systems:
        if name in VARIANTS and not ("ensemble" in systems and name in ENSEMBLE):
            maps = predict(name)
            labels[name] = threshold_labels(maps[..., 0], maps[..., 1])
    if "ensemble" in systems:
        mean = mean_maps(voters())
        labels["ensemble"] = threshold_labels(mean[..., 0], mean[..., 1])
    if "ensemble_postprocess" in systems:
        lnet_prob = mean_maps(predict(name) for name in LOCALIZERS if name in models)[..., 0]
        labels["ensemble_postprocess"] = _decide(mean, lnet_prob, run.config)

    truth = load_label_scan(require_label(_source(run, case)))
    rows = []
    for system in systems:
        native = label_from_grid(labels[system], case.grid, case.source_shape, case.spacing_mm)
        # Surfaces take seconds at full size: only the system that is handed in gets them.
        spacing_mm = case.spacing_mm if system == "ensemble_postprocess" else None
        rows.append(
            score_case(
                system,
                fold,
                case.case_id,
                labels[system],
                np.asarray(case.label()),
                native,
                truth.volume_hu,
                spacing_mm,
            )
        )
    return rows


def _source(run: Run, case: PreparedCase) -> Any:
    for source in find_cases(run.data):
        if source.case_id == case.case_id:
            return source
    raise DataError(f"{run.data}: {case.case_id} is no longer there; prepare the run again")


def _load_models(run: Run, names: Sequence[str], fold: int) -> dict[str, keras.Model]:
    from tunet_lib.networks import load_model

    return {name: load_model(run.model_folder(name, fold), run.config)[0] for name in names}
