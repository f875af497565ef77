import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tunet_lib import course
from tunet_lib.config import ENSEMBLE, LOCALIZERS, Config
from tunet_lib.files import load_json
from tunet_lib.folds import split_folds
from tunet_lib.kits19 import find_cases
from tunet_lib.phantom import write_phantoms
from tunet_lib.postprocess import grow


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
    others = split_folds([case.case_id for case in find_cases(data)], config.folds, config.seed)[1:]
    assert names
    assert not names & {name for fold in others for name in fold}


def test_the_course_case_is_the_one_whose_tumor_is_nearest_to_30_ml(monkeypatch, data):
    cases = find_cases(data)
    monkeypatch.setattr(course, "held_out_cases", lambda folder: cases)
    away = {case.case_id: abs(course._tumor_ml(case) - 30) for case in cases}
    assert course.course_case(data).case_id == min(away, key=away.get)


def test_a_prepared_case_is_what_prediction_needs(case):
    config = Config.load(course.COURSE_WEIGHTS / "tunet" / "config.json")
    assert case.config == config
    assert case.scan.volume_hu.shape == case.truth.shape
    assert case.truth_on_grid.shape == case.placement.grid_shape == config.grid_shape
    assert set(case.volumes) == {False, True}
    assert not np.array_equal(case.volumes[False], case.volumes[True])


def test_each_network_predicts_once(case, monkeypatch):
    loaded = []
    original = course.course_model
    monkeypatch.setattr(course, "course_model", lambda name: loaded.append(name) or original(name))
    # The four that vote see a corner only, which is a few windows; L-Net sees all.
    corner = {median: volume[:20, :40, :40] for median, volume in case.volumes.items()}
    part = dataclasses.replace(case, volumes=corner)
    mean = part.ensemble()
    np.testing.assert_allclose(mean, part.ensemble())
    assert loaded == list(ENSEMBLE)
    assert mean.shape == (20, 40, 40, 2)
    np.testing.assert_allclose(
        mean, np.mean([part.maps(name) for name in ENSEMBLE], axis=0), atol=1e-6
    )
    assert case.lnet_prob().shape == case.placement.grid_shape
    assert loaded == [*ENSEMBLE, *LOCALIZERS]
    assert [course.course_model(name).variant.name for name in LOCALIZERS] == list(LOCALIZERS)


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
