"""The capstone: secret CTs, and the leaderboard."""

import html.parser
import json

import pytest

from coursework.capstone import leaderboard, write_cts
from coursework.task import CourseworkError
from tunet_lib.pairs import find_labels, score_pairs
from tunet_lib.scans import load_label

SECRET = bytes(range(16))


@pytest.fixture(scope="module")
def cts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("capstone")
    write_cts(folder, SECRET, 2)
    return folder


def test_students_get_cts_and_nothing_that_tells_the_truth(cts):
    students = sorted(p.name for p in (cts / "students").rglob("*") if p.is_file())
    assert students == ["imaging.nii.gz", "imaging.nii.gz", "kits.json"]
    entries = json.loads((cts / "students" / "kits.json").read_text())
    assert [entry["case_id"] for entry in entries] == ["case_00000", "case_00001"]
    assert {key for entry in entries for key in entry} <= {
        *("case_id", "synthetic", "size", "voxel_spacing")
    }
    assert set(find_labels(cts / "truth")) == {"case_00000", "case_00001"}
    assert [row["mean"] for row in score_pairs(cts / "truth", cts / "truth")] == [1, 1]


def test_the_secret_decides(cts, tmp_path):
    write_cts(tmp_path, SECRET, 1)
    name = "truth/case_00000/segmentation.nii.gz"
    first = load_label(cts / name)
    assert (load_label(tmp_path / name) == first).all()
    with pytest.raises(CourseworkError, match="there already"):
        write_cts(tmp_path, SECRET, 1)
    write_cts(tmp_path / "other", bytes(16), 1)
    other = load_label(tmp_path / "other" / name)
    assert other.shape != first.shape or (other != first).any()


def row(case_id, dsc):
    return {"case_id": case_id, "mean": dsc, "whole": dsc, "tumor": dsc}


def test_the_best_is_first_and_names_are_harmless():
    scores = {
        "course": [row("a", 0.5), row("b", 0.6)],
        "<script>": [row("a", 0.7), row("b", 0.8)],
        "ada": [row("a", 0.4), row("b", 0.6)],
    }
    page = leaderboard(scores, "course")
    html.parser.HTMLParser().feed(page)
    assert "<script>" not in page
    places = [page.index(name) for name in ("&lt;script&gt;", "<td>course", "<td>ada")]
    assert places == sorted(places)
    assert "0.200 [0.200, 0.200]" in page
    assert "2 secret cases" in page
    assert "less" not in leaderboard(scores)
