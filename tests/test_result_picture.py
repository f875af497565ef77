"""The picture of the README and of links says what the networks that come with the book find."""

import importlib
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
DATA = ROOT / "data" / "phantoms"
pytestmark = pytest.mark.skipif(
    not (BOOK / "result_picture.py").exists(), reason="the book is not there"
)


@pytest.fixture(scope="module")
def result_picture():
    sys.path.insert(0, str(BOOK))
    yield importlib.import_module("result_picture")
    sys.path.remove(str(BOOK))


@pytest.mark.skipif(not (DATA / "kits.json").exists(), reason="no phantoms: make data")
def test_it_shows_the_course_case_with_the_scores_of_today(result_picture):
    case = result_picture.course_case(DATA)
    said = result_picture.words(case, result_picture.found_in(case))
    with Image.open(result_picture.PICTURE) as picture:
        assert picture.size == result_picture.SIZE_PX
        assert picture.info["Description"] == " ".join(said), "python book/result_picture.py"
