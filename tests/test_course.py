import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tunet_lib import course
from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config
from tunet_lib.evaluation import STEPS, SYSTEMS, read_scores
from tunet_lib.files import load_json
from tunet_lib.folds import split_folds
from tunet_lib.kits19 import find_cases
from tunet_lib.phantom import write_phantoms
from tunet_lib.postprocess import grow

RESULTS = Path(__file__).parents[1] / "book" / "results"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first five phantoms only, each with the name and place that it has among all."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 5)
    return folder


@pytest.fixture(scope="module")
def case(data):
    return course.CourseCase.load(find_cases(data)[2])


def test_held_out_cases_were_seen_by_no_network_of_the_course(monkeypatch, data):
    monkeypatch.setattr(course, "write_phantoms", lambda folder: None)  # all 80 take longer
    names = {case.case_id for case in course.held_out_cases(data)}
    config = course.course_config()
    study = [f"case_{k:05d}" for k in range(course.STUDY_CASES)]
    others = split_folds(study, config.folds, config.seed)
    assert names == {"case_00000", "case_00001", "case_00003"}
    assert names <= set(others.pop(course.FOLD))
    assert not names & {name for fold in others for name in fold}


def test_the_courses_networks_were_scored_on_all_that_their_fold_holds_out():
    config, study = course.course_config(), [f"case_{k:05d}" for k in range(course.STUDY_CASES)]
    held_out = sorted(split_folds(study, config.folds, config.seed)[course.FOLD])
    rows = read_scores(RESULTS / "fold_1_scores.csv")
    steps = read_scores(RESULTS / "fold_1_algorithm_1.csv")
    for names, of in ((SYSTEMS, rows), (STEPS, steps)):
        assert {row["fold"] for row in of} == {course.FOLD}
        for name in names:
            assert sorted(row["case_id"] for row in of if row["system"] == name) == held_out
    # The study scored some of them, on another processor
    before = {(row["system"], row["case_id"]): row for row in read_scores(RESULTS / "scores.csv")}
    both = [(row, before.get((row["system"], row["case_id"]))) for row in rows]
    both = [pair for pair in both if all(pair)]
    assert len(both) == 12 * len(SYSTEMS)
    for field in ("grid_whole", "grid_tumor", "native_whole", "native_tumor"):
        assert max(abs(one[field] - other[field]) for one, other in both) < 0.002


def test_the_course_case_is_the_one_whose_tumor_is_nearest_to_30_ml(monkeypatch, data):
    cases = find_cases(data)
    monkeypatch.setattr(course, "held_out_cases", lambda folder: cases)
    away = {case.case_id: abs(course.tumor_ml(case) - 30) for case in cases}
    assert course.course_case(data).case_id == min(away, key=away.get)


def test_a_prepared_case_is_what_prediction_needs(case):
    config = Config.load(course.COURSE_WEIGHTS / "tunet" / "config.json")
    assert case.config == config
    assert case.scan.volume_hu.shape == case.truth.shape
    assert case.truth_on_grid.shape == case.placement.grid_shape == config.grid_shape
    assert set(case.volumes) == {False, True}
    assert not np.array_equal(case.volumes[False], case.volumes[True])


@pytest.mark.parametrize("name", ["lnet", "unet2d", "tunet"])
def test_the_stored_maps_are_what_the_network_finds(data, name):
    here = course.CourseCase.load(find_cases(data)[0])
    stored = here.maps(name)
    found = here.predict(name)
    assert stored.shape == found.shape
    assert stored.dtype == found.dtype == np.float32
    # Half a step of 1/255, and the bits in which one processor differs from another
    assert np.abs(stored - found).max() < 0.5 / 255 + 1e-3


def test_every_held_out_case_has_maps_of_every_network():
    study = [f"case_{k:05d}" for k in range(80)]
    config = course.course_config()
    held_out = split_folds([f"case_{k:05d}" for k in range(210)], config.folds, config.seed)[1]
    stored = {path.stem: set(np.load(path).files) for path in course.COURSE_MAPS.glob("*.npz")}
    assert set(stored) == {name for name in held_out if name in study}
    assert all(names == {"ct", *VARIANTS} for names in stored.values())


def test_another_ct_of_the_same_name_is_predicted_anew(data, monkeypatch):
    here = course.CourseCase.load(find_cases(data)[0])
    assert here._stored("lnet") is not None
    other = dataclasses.replace(here, scan=dataclasses.replace(here.scan, volume_hu=here.truth))
    assert other._stored("lnet") is None


def test_each_network_predicts_once(case, monkeypatch):
    loaded = []
    original = course._loaded_once
    monkeypatch.setattr(course, "_loaded_once", lambda name: loaded.append(name) or original(name))
    prob = case.lnet_prob()
    np.testing.assert_array_equal(prob, case.lnet_prob())
    assert loaded == list(LOCALIZERS)
    assert prob.shape == case.placement.grid_shape


def test_the_ensemble_is_the_mean_of_the_four(case, monkeypatch):
    fixed = {name: np.full((2, 3, 4, 2), k, np.float32) for k, name in enumerate(ENSEMBLE)}
    monkeypatch.setattr(course.CourseCase, "predict", lambda self, name: fixed[name])
    fresh = dataclasses.replace(case, _kept={})
    np.testing.assert_array_equal(fresh.ensemble(), np.full((2, 3, 4, 2), 1.5, np.float32))


def test_the_source_is_shown_without_its_docstring():
    shown = course.show_source(grow).data
    assert shown.startswith("```python\ndef grow(")
    assert shown.endswith("return grown\n```")
    assert "Refine a region" not in shown
    assert "# One look-up" in shown
    assert "Refine a region" in course.show_source(grow, docstring=True).data


def test_what_is_only_a_docstring_is_kept():
    class Empty:
        """All there is."""

    assert "All there is" in course.show_source(Empty).data


def test_a_quiz_is_found_from_the_repositorys_root_too(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("jupyterquiz.display_quiz", lambda path, **_: seen.append(path))
    (tmp_path / "notebooks" / "quizzes").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(folder)
        course.quiz("01_kits19")
    assert seen == ["notebooks/quizzes/01_kits19.json", "quizzes/01_kits19.json"]


def test_the_same_quiz_comes_out_the_same(monkeypatch):
    pages = []
    monkeypatch.setattr("jupyterquiz.dynamic.display.display", lambda page: pages.append(page.data))
    questions = Path(__file__).parents[1] / "notebooks"
    monkeypatch.chdir(questions)
    for _ in range(2):
        course.quiz("01_kits19")
    assert pages[:2] == pages[2:]
    assert load_json(questions / "quizzes" / "01_kits19.json")[0]["question"] in pages[1]
