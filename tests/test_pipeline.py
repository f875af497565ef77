"""Evaluation of a whole run and prediction of one CT, with untrained or pretended networks."""

import dataclasses
import os
import shutil
import weakref

import numpy as np
import pytest
from scans import SHAPE, SPACING_MM, save_network, save_untrained, scan_config, write_scans

from tunet_lib import inference, pipeline
from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config
from tunet_lib.evaluation import SYSTEMS, read_scores, write_scores
from tunet_lib.files import DataError, save_json
from tunet_lib.kits19 import load_scan, save_case
from tunet_lib.metrics import kits19_score
from tunet_lib.phantom import make_phantom
from tunet_lib.pipeline import (
    COURSE_WEIGHTS,
    evaluate_run,
    find_models,
    predict_scan,
    systems_of,
    tabulate_run,
)
from tunet_lib.runs import open_run, prepare_run


@pytest.fixture
def run(tmp_path):
    write_scans(tmp_path / "data")
    return prepare_run(tmp_path / "data", tmp_path / "run", scan_config())[0]


@pytest.fixture
def pretend(run, monkeypatch):
    """Let every network answer with a part of the truth: all, none, or a given share."""
    save_untrained_names(run, VARIANTS)
    monkeypatch.setattr(pipeline, "_load_models", lambda run, names, fold: dict.fromkeys(names))
    answers = dict.fromkeys(VARIANTS, 1.0)
    truths = {
        case.volume(median).tobytes(): case.label() for case in run.cases() for median in (0, 1)
    }

    def answer(model, variant, volume, config, batch_size=1, on_part=None, where=None, tight=False):
        label = truths[volume.astype(np.float16).tobytes()]
        channels = [label > 0] if variant.network == "lnet" else [label > 0, label == 2]
        return np.stack(channels, axis=-1) * np.float32(answers[variant.name])

    monkeypatch.setattr(inference, "predict_volume", answer)
    return answers


def save_untrained_names(run, names):
    """Make the files by which a run knows a finished training."""
    for fold, held_out in enumerate(run.folds):
        seen = [c for ids in run.folds for c in ids if c not in held_out]
        for name in names:
            save_json(run.model_folder(name, fold) / "training_cases.json", seen)
            (run.model_folder(name, fold) / "model.weights.h5").touch()


def scores(rows, system):
    return [row["grid_mean"] for row in rows if row["system"] == system]


def test_ten_rows_by_untrained_networks(run):
    save_untrained(run)
    done = []
    rows, failures = evaluate_run(run, done.append)
    assert failures == {}
    assert sorted(done) == sorted(run.folds[0] + run.folds[1])
    assert {(row["system"], row["case_id"]) for row in rows} == {
        (system, case_id) for system in SYSTEMS for case_id in done
    }
    assert len(rows) == 40
    assert all(row["case_id"] in run.folds[row["fold"]] for row in rows)
    assert read_scores(run.folder / "scores.csv") == rows
    table = tabulate_run(run)
    assert [(row.system, row.folds, row.cases) for row in table] == [(s, 2, 4) for s in SYSTEMS]
    assert (run.folder / "table_1.csv").exists()


def test_perfect_networks_score_one_in_every_row(run, pretend):
    rows, failures = evaluate_run(run)
    assert failures == {}
    assert {row["grid_mean"] for row in rows} == {1.0}
    surfaces = [row["whole_surface_dice"] for row in rows if row["system"] == list(SYSTEMS)[-1]]
    assert all(value is not None and 0 < value <= 1 for value in surfaces)


def test_the_ensemble_is_the_mean_of_its_voters(run, pretend):
    # Two say 0.9 and two 0.2, so the mean is 0.55; with 0.05 for the last it is 0.475.
    pretend |= dict(zip(ENSEMBLE, (0.9, 0.9, 0.2, 0.2), strict=True))
    rows, _ = evaluate_run(run)
    assert [set(scores(rows, s)) for s in (*ENSEMBLE, "ensemble")] == [{1}, {1}, {0}, {0}, {1}]


def test_without_a_majority_the_ensemble_finds_nothing(run, pretend):
    pretend |= dict(zip(ENSEMBLE, (0.9, 0.9, 0.05, 0.05), strict=True))
    rows, _ = evaluate_run(run)
    assert set(scores(rows, "ensemble")) == {0.0}


def test_evaluating_again_keeps_what_is_up_to_date(run, pretend, monkeypatch):
    first, _ = evaluate_run(run)
    scored = []
    real = pipeline._score
    monkeypatch.setattr(
        pipeline, "_score", lambda *args: scored.append(args[1].case_id) or real(*args)
    )
    assert evaluate_run(run) == (first, {})
    assert scored == []
    newer = run.model_folder("lnet", 1) / "model.weights.h5"
    os.utime(newer, (newer.stat().st_atime, newer.stat().st_mtime + 60))
    assert evaluate_run(run) == (first, {})
    assert scored == run.folds[1]


def test_only_what_is_trained_is_scored(run, pretend):
    (run.model_folder("lnet_median", 0) / "model.weights.h5").unlink()
    for name in ("tunet", "unet3d"):
        (run.model_folder(name, 1) / "model.weights.h5").unlink()
    rows, _ = evaluate_run(run)
    by_fold = [[r["system"] for r in rows if r["case_id"] == ids[0]] for ids in run.folds]
    assert by_fold[0] == [s for s in SYSTEMS if s != "ensemble_postprocess"]
    assert by_fold[1] == [s for s in SYSTEMS if s in VARIANTS and s not in ("tunet", "unet3d")]


@pytest.mark.parametrize(
    ("names", "systems"),
    [
        ([], []),
        (LOCALIZERS, []),
        (["tunet", "lnet"], ["tunet"]),
        (ENSEMBLE, [*ENSEMBLE, "ensemble"]),
        ([*ENSEMBLE, "lnet"], [*ENSEMBLE, "ensemble"]),
        ([*ENSEMBLE, *LOCALIZERS], [*ENSEMBLE, "ensemble", "ensemble_postprocess"]),
    ],
)
def test_systems(names, systems):
    assert systems_of(names) == systems


def test_nothing_trained(run):
    with pytest.raises(DataError, match="nothing is trained yet"):
        evaluate_run(run)


def test_a_case_that_fails_is_reported_and_the_others_are_scored(run, pretend):
    bad = run.folds[0][0]
    (run.data / bad / "segmentation.nii.gz").write_bytes(b"\x1f\x8b")
    rows, failures = evaluate_run(run)
    assert list(failures) == [bad]
    assert "segmentation.nii.gz: is cut short" in failures[bad]
    assert len(rows) == 30


def test_models_of_tampered_folds_score_nothing(run, pretend):
    """The guard of cross-validation: no case is scored by a model that saw it."""
    (a, *rest), (b, *others) = run.folds
    save_json(run.folder / "run.json", {"data": str(run.data), "folds": [[b, *rest], [a, *others]]})
    with pytest.raises(DataError, match=f"was trained on {b}, which fold 0 holds out"):
        evaluate_run(open_run(run.folder))
    assert not (run.folder / "scores.csv").exists()


def test_tampered_scores_are_refused(run, pretend):
    evaluate_run(run)
    path = run.folder / "scores" / "fold_0" / f"{run.folds[0][0]}.csv"
    write_scores(path, [{**row, "fold": 1} for row in read_scores(path)])
    with pytest.raises(DataError, match="does not hold it out"):
        evaluate_run(run)


def test_damaged_weights_fail_their_fold_only(run):
    save_untrained(run, ["unet2d"])
    (run.model_folder("unet2d", 1) / "model.weights.h5").write_bytes(b"no weights")
    rows, failures = evaluate_run(run)
    assert sorted(failures) == run.folds[1]
    assert "model.weights.h5" in failures[run.folds[1][0]]
    assert [row["case_id"] for row in rows] == run.folds[0]


def test_models_are_searched_in_depth_and_baselines_left_out(run):
    save_untrained(run, ["unet2d", "tunet", "lnet"])
    names = [variant.name for variant, _ in find_models(run.folder / "models")]
    assert names == ["lnet", "tunet"] * 2


@pytest.mark.parametrize("folder", ["models", "absent"])
def test_a_folder_without_a_tunet(tmp_path, folder):
    save_network(tmp_path / "models", "lnet", scan_config())
    with pytest.raises(DataError, match=f"{folder}: holds no trained TuNet"):
        find_models(tmp_path / folder)


def test_models_of_two_configurations(tmp_path):
    save_network(tmp_path / "a", "tunet", scan_config())
    save_network(tmp_path / "b", "lnet", scan_config(pad_hu=-900.0))
    with pytest.raises(DataError, match=r"b: was trained with another.*pad_hu differ"):
        find_models(tmp_path)


def test_course_weights_are_a_model_of_each_kind():
    names = {variant.name for variant, _ in find_models(COURSE_WEIGHTS)}
    assert names == {*ENSEMBLE, *LOCALIZERS}


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Let no map be alive when the next one is made; gives the number of maps made."""
    made = []

    def answer(model, variant, volume, config, batch_size=1, on_part=None, where=None, tight=False):
        assert all(reference() is None for reference in made)
        prob = np.zeros((*volume.shape, 1 if variant.network == "lnet" else 2), np.float32)
        made.append(weakref.ref(prob))
        return prob

    monkeypatch.setattr(inference, "predict_volume", answer)
    return made


@pytest.mark.filterwarnings("ignore:.*L-Net")
def test_evaluation_holds_one_map_at_a_time(run, pretend, one_at_a_time):
    evaluate_run(run)
    assert len(one_at_a_time) == 4 * len(VARIANTS)


@pytest.mark.filterwarnings("ignore:.*L-Net")
def test_prediction_holds_one_map_at_a_time(tmp_path, one_at_a_time):
    for name in ("tunet", "tunet_median", "lnet", "lnet_median"):
        save_network(tmp_path / "models" / name, name, scan_config())
    case = write_scans(tmp_path / "data", 1)[0]
    predict_scan(load_scan(case.image_path), tmp_path / "models")
    assert len(one_at_a_time) == 4


@pytest.mark.parametrize("factor", [1, 2])
def test_a_ct_larger_than_the_field_of_view_is_not_cropped(tmp_path, monkeypatch, factor):
    """A lesion at the very corner of a CT twice as large is found there."""
    config = scan_config()
    save_network(tmp_path / "models", "tunet", config)
    shape = tuple(size * factor for size in SHAPE)
    label = np.zeros(shape, np.uint8)
    label[-6:, -12:, -12:] = 2
    case = save_case(tmp_path, "case_00000", label.astype(np.int16) * 1000, None, SPACING_MM)

    def find_bright(
        model, variant, volume, config, batch_size=1, on_part=None, where=None, tight=False
    ):
        on_part(1.0)
        return np.stack([volume > volume.max() / 2] * 2, axis=-1).astype(np.float32)

    monkeypatch.setattr(inference, "predict_volume", find_bright)
    parts = []
    found = predict_scan(load_scan(case.image_path), tmp_path / "models", on_part=parts.append)
    assert parts == [1.0]
    assert found.shape == shape
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[-5:, -10:, -10:], 2)
    assert not found[:-8, :-16, :-16].any()


def test_a_tall_ct_is_the_same_whole_and_in_blocks(tmp_path):
    """The course's networks on a phantom twice as tall as their field of view."""
    config = Config.load(COURSE_WEIGHTS / "tunet" / "config.json")
    depth, *plane = config.grid_shape
    height_mm, *plane_mm = config.grid_fov_mm
    twice = dataclasses.replace(
        config,
        grid_shape=(2 * depth, *plane),
        grid_fov_mm=(2 * height_mm, *plane_mm),
        lnet_shape=(2 * config.lnet_shape[0], *config.lnet_shape[1:]),
    )
    for name in ("lnet", "tunet"):
        shutil.copytree(COURSE_WEIGHTS / name, tmp_path / "blocks" / name)
        shutil.copytree(COURSE_WEIGHTS / name, tmp_path / "whole" / name)
        twice.save(tmp_path / "whole" / name / "config.json")
    slices = int(2 * height_mm / 5)
    volume_hu, label, spacing_mm = make_phantom(
        np.random.default_rng(1), (slices, 96, 96), (5.0, 4.0, 4.0)
    )
    scan = load_scan(save_case(tmp_path, "case_00000", volume_hu, None, spacing_mm).image_path)
    in_blocks = predict_scan(scan, tmp_path / "blocks", batch_size=4)
    whole = predict_scan(scan, tmp_path / "whole", batch_size=4)
    agree = kits19_score(in_blocks, whole)
    assert min(agree["whole"], agree["tumor"]) >= 0.99
    assert kits19_score(in_blocks, label)["whole"] > 0.5  # and there is something to agree on
