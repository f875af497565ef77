"""Every case of a run scored by the networks of its fold, untrained or pretended ones."""

import dataclasses
import functools
import os

import numpy as np
import pytest
from scans import SPACING_MM, one_map_at_a_time, save_untrained, scan_config, write_scans

from tunet_lib import model, networks, scoring
from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS
from tunet_lib.evaluation import (
    STEPS,
    SURFACE_TOLERANCE_MM,
    SYSTEMS,
    read_scores,
    write_scores,
)
from tunet_lib.files import DataError, save_json
from tunet_lib.kits19 import find_cases
from tunet_lib.metrics import kits19_score, surface_distances
from tunet_lib.model import Model
from tunet_lib.parallel import KilledError
from tunet_lib.placement import Placement
from tunet_lib.runs import open_run, prepare_run
from tunet_lib.scans import load_label
from tunet_lib.scoring import FoldScores, evaluate_run, label_systems, systems_of
from tunet_lib.table import table_1

# One level: a network of each kind in a moment.
CONFIG = scan_config(levels=1)


SCORED = {**SYSTEMS, **STEPS}


@pytest.fixture
def run(tmp_path):
    write_scans(tmp_path / "data")
    return prepare_run(tmp_path / "data", tmp_path / "run", CONFIG)[0]


@pytest.fixture
def pretend(run, monkeypatch):
    """Let every network answer with a part of the truth: all, none, or a given share."""
    save_names_only(run, VARIANTS)
    answers = dict.fromkeys(VARIANTS, 1.0)
    truths = {
        case.volume(median).tobytes(): case.label() for case in run.cases() for median in (0, 1)
    }

    def answer(self, volumes, *, batch_size=1):
        label = truths[volumes[self.variant.median].astype(np.float16).tobytes()]
        masks = {"whole": label > 0, "tumor": label == 2}
        maps = np.stack([masks[region] for region in self.variant.regions], axis=-1)
        return maps * np.float32(answers[self.variant.name])

    def load(path, network=None):
        return Model(None, VARIANTS[path.name], run.config)

    monkeypatch.setattr(Model, "load", load)
    monkeypatch.setattr(Model, "predict", answer)
    return answers


def save_names_only(run, names):
    """Make the files by which a run knows a finished training."""
    for fold, held_out in enumerate(run.folds):
        seen = [c for ids in run.folds for c in ids if c not in held_out]
        for name in names:
            folder = run.model_folder((name, fold))
            folder.note_cases(seen)
            folder.weights.touch()


def scores(rows, system):
    return [row["grid_mean"] for row in rows if row["system"] == system]


def test_ten_rows_by_untrained_networks(run):
    save_untrained(run)
    done = []
    rows, failures = evaluate_run(run, on_case=done.append)
    assert failures == {}
    assert sorted(done) == sorted(run.folds[0] + run.folds[1])
    assert {(row["system"], row["case_id"]) for row in rows} == {
        (system, case_id) for system in SCORED for case_id in done
    }
    assert len(rows) == 48
    assert all(row["case_id"] in run.folds[row["fold"]] for row in rows)
    for name, systems in (("scores.csv", SYSTEMS), ("algorithm_1.csv", STEPS)):
        own = [row for row in rows if row["system"] in systems]
        assert read_scores(run.folder / name) == own
        assert len(own) == 4 * len(systems)
    table = table_1(read_scores(run.folder / "scores.csv"))
    assert [(row.system, row.folds, row.cases) for row in table] == [(s, 2, 4) for s in SYSTEMS]


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
    real = scoring.score_case

    def score_case(system, fold, case_id, **maps):
        scored.append(case_id)
        return real(system, fold, case_id, **maps)

    monkeypatch.setattr(scoring, "score_case", score_case)
    assert evaluate_run(run) == (first, {})
    assert scored == []
    other = run.model_folder(("lnet", 1)).weights
    other.write_bytes(other.read_bytes() + b"other")
    os.utime(other, (0, 0))  # as of a copy that keeps times
    assert evaluate_run(run) == (first, {})
    assert list(dict.fromkeys(scored)) == run.folds[1]
    assert len(scored) == len(run.folds[1]) * len(SCORED)


def test_scores_by_other_thresholds_are_not_kept(run, pretend):
    pretend |= dict.fromkeys(ENSEMBLE, 0.6)
    first, _ = evaluate_run(run)
    config = dataclasses.replace(run.config, high_threshold=0.7, empty_low_threshold=0.65)
    strict, _ = evaluate_run(dataclasses.replace(run, config=config))
    again, _ = evaluate_run(run)
    assert scores(strict, "ensemble_postprocess") != scores(first, "ensemble_postprocess")
    assert again == first


def test_only_what_is_trained_is_scored(run, pretend):
    run.model_folder(("lnet_median", 0)).weights.unlink()
    for name in ("tunet", "unet3d"):
        run.model_folder((name, 1)).weights.unlink()
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
        ([*ENSEMBLE, *LOCALIZERS], [*ENSEMBLE, *STEPS]),
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
    assert len(rows) == 3 * len(SCORED)


def test_folds_side_by_side_give_the_same_scores(run):
    save_untrained(run, ["unet2d", "lnet"])
    done = []
    alone = evaluate_run(run)
    for path in run.folder.glob("scores/*/*.csv"):
        path.unlink()
    assert evaluate_run(run, jobs=2, on_case=done.append) == alone
    assert sorted(done) == sorted(run.folds[0] + run.folds[1])


def test_a_fold_whose_process_is_killed_takes_no_other_with_it(run, monkeypatch):
    save_untrained(run, ["unet2d", "lnet"])
    alone, _ = evaluate_run(run)

    def each(function, folds, jobs):
        yield 0, lambda: function(0)
        yield 1, functools.partial(killed, function)

    def killed(*_):
        raise KilledError("its process was killed")

    monkeypatch.setattr(scoring, "each", each)
    rows, failures = evaluate_run(run, jobs=2)
    assert rows == [row for row in alone if row["fold"] == 0] != []
    assert failures == dict.fromkeys(run.folds[1], "its process was killed")


def test_the_steps_of_algorithm_1_are_those_of_its_lines(run, pretend):
    """Whole and tumor of 0.35 everywhere near the truth: neither grows, for nothing reaches T."""
    case = run.cases()[0]
    truth = np.asarray(case.label())
    volumes = {median: np.asarray(case.volume(median), np.float32) for median in (False, True)}
    models = {n: Model(None, VARIANTS[n], run.config) for n in (*ENSEMBLE, *LOCALIZERS)}
    labels = label_systems(models, volumes, run.config)
    assert list(labels)[-4:] == list(STEPS)
    np.testing.assert_array_equal(labels["line_9"] > 0, truth > 0)
    np.testing.assert_array_equal(labels["line_27"], truth)
    pretend |= dict.fromkeys(ENSEMBLE, 0.35)
    labels = label_systems(models, volumes, run.config)
    assert not labels["ensemble"].any()
    # Lines 5 and 12: where nothing reaches T, 0.1 is enough.
    np.testing.assert_array_equal(labels["line_9"], (truth > 0).astype(np.uint8))
    np.testing.assert_array_equal(labels["line_27"], truth)
    pretend |= dict.fromkeys(LOCALIZERS, 0.0)
    with pytest.warns(UserWarning, match="its mask is not applied"):
        labels = label_systems(models, volumes, run.config)
    np.testing.assert_array_equal(labels["ensemble_postprocess"], labels["line_27"])


def test_networks_that_call_every_kidney_a_tumor_have_the_figures_of_that(
    run, pretend, monkeypatch
):
    """What is predicted and what is true, grid and scan, their voxels: none is the other."""
    right = Model.predict

    def all_tumor(self, volumes, **options):
        maps = right(self, volumes, **options)
        return np.repeat(maps[..., :1], maps.shape[-1], axis=-1)

    monkeypatch.setattr(Model, "predict", all_tumor)
    rows, failures = evaluate_run(run)
    assert (len(rows), failures) == (4 * len(SCORED), {})
    voxel_ml = np.prod(run.config.grid_spacing_mm) / 1000
    for case in run.cases():
        true_grid = np.asarray(case.label())
        said = np.where(true_grid > 0, np.uint8(2), np.uint8(0))
        back = Placement(case, run.config).label_from_grid(said)
        truth = load_label(run.data / case.case_id / "segmentation.nii.gz")
        tumor, whole = np.count_nonzero(true_grid == 2), np.count_nonzero(true_grid)
        expected = {
            **{f"grid_{region}": dsc for region, dsc in kits19_score(said, true_grid).items()},
            **{f"native_{region}": dsc for region, dsc in kits19_score(back, truth).items()},
            "tumor_ml": pytest.approx(tumor * voxel_ml),
            "tumor_sensitivity": 1.0,
            "tumor_precision": pytest.approx(tumor / whole),
            "false_tumor_ml": None,  # no kidney is free of tumor
        }
        assert 0 < expected["native_tumor"] < expected["native_whole"] < 1
        surfaces = {}
        for region, above in (("whole", 0), ("tumor", 1)):
            found = surface_distances(
                back > above, truth > above, SPACING_MM, tolerance_mm=SURFACE_TOLERANCE_MM
            )
            surfaces |= {f"{region}_{figure}": value for figure, value in vars(found).items()}
        assert min(surfaces["whole_hd95_mm"], surfaces["tumor_hd95_mm"]) > 0
        for row in (row for row in rows if row["case_id"] == case.case_id):
            assert {name: row[name] for name in expected} == expected
            # Of one system only, for at full size they take seconds.
            is_last = row["system"] == "ensemble_postprocess"
            wanted = surfaces if is_last else dict.fromkeys(surfaces)
            assert {name: row[name] for name in surfaces} == wanted


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
    run.model_folder(("unet2d", 1)).weights.write_bytes(b"no weights")
    rows, failures = evaluate_run(run)
    assert sorted(failures) == run.folds[1]
    assert "model.weights.h5" in failures[run.folds[1][0]]
    assert [row["case_id"] for row in rows] == run.folds[0]


def test_networks_of_another_configuration_fail_their_fold_only(run):
    save_untrained(run, ["unet2d"])
    scan_config(levels=1, seed=7).save(run.model_folder(("unet2d", 0)).path / "config.json")
    rows, failures = evaluate_run(run)
    assert sorted(failures) == run.folds[0]
    assert "seed differ" in failures[run.folds[0][0]]
    assert [row["case_id"] for row in rows] == run.folds[1]


@pytest.mark.filterwarnings("ignore:.*L-Net")
def test_evaluation_holds_one_map_at_a_time(run, pretend, monkeypatch):
    made = []
    monkeypatch.setattr(Model, "predict", one_map_at_a_time(made))
    evaluate_run(run)
    assert len(made) == 4 * len(VARIANTS)


def test_the_networks_of_a_fold_are_loaded_once_and_only_when_needed(run, pretend, monkeypatch):
    loaded, load = [], Model.load

    def noted(path, network=None):
        loaded.append(path.name)
        return load(path, network=network)

    monkeypatch.setattr(Model, "load", noted)
    scored = FoldScores(run, 0, batch_size=1)
    assert loaded == []
    assert scored.models() is scored.models()
    assert sorted(loaded) == sorted(VARIANTS)


def test_each_system_has_the_label_map_of_its_networks(run, pretend):
    pretend |= {"unet2d": 0.0, "tunet": 0.0}
    case = run.cases()[0]
    volumes = {median: np.asarray(case.volume(median), np.float32) for median in (False, True)}
    names = ["unet2d", "unet3d_median", *ENSEMBLE, *LOCALIZERS]
    models = {name: Model(None, VARIANTS[name], run.config) for name in names}
    labels = label_systems(models, volumes, run.config)
    assert list(labels) == systems_of(names)
    for system, label in labels.items():
        assert label.dtype == np.uint8
        expected = case.label() if pretend.get(system, 1.0) else np.zeros(case.grid_shape)
        np.testing.assert_array_equal(label, expected)
    # Without the median-filtered volume, what does not need it.
    plain = label_systems({"unet3d": Model(None, VARIANTS["unet3d"], run.config)},
                          {False: volumes[False]}, run.config)  # fmt: skip
    np.testing.assert_array_equal(plain["unet3d"], case.label())


def test_a_fold_gives_its_networks_to_the_next_one_and_scores_are_the_same(run, monkeypatch):
    save_untrained(run, ["unet2d", "tunet"])
    built = []
    build = networks.build
    monkeypatch.setattr(model, "build", lambda *what: built.append(what[0].name) or build(*what))
    rows, failures = evaluate_run(run)
    assert not failures
    assert sorted(built) == ["tunet", "unet2d"]
    apart = [
        row
        for fold, case_ids in enumerate(run.folds)
        for row in fold_rows(run, fold, case_ids, monkeypatch)
    ]
    assert rows == apart


def fold_rows(run, fold, case_ids, monkeypatch):
    scored = FoldScores(run, fold, batch_size=4)
    monkeypatch.setattr(scored, "_kept", lambda case: None)
    prepared = {case.case_id: case for case in run.cases()}
    sources = {case.case_id: case for case in find_cases(run.data)}
    return [row for c in case_ids for row in scored.of(prepared[c], sources[c])]


def test_scores_are_kept_where_the_new_configuration_is_that_of_no_network(run, pretend):
    evaluate_run(run)
    kept = {p: p.read_bytes() for p in (run.folder / "scores").rglob("*.csv")}
    assert kept
    for task in run.tasks():
        run.config.save(run.model_folder(task).config_path)
    other = dataclasses.replace(run.config, epochs=run.config.epochs + 1)
    other.save(run.folder / "config.json")
    with pytest.raises(DataError, match="training with another configuration"):
        evaluate_run(open_run(run.folder))
    assert {p: p.read_bytes() for p in (run.folder / "scores").rglob("*.csv")} == kept
