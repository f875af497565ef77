"""Questions that want a look at a picture: is it on the page, and is the answer what it shows?"""

import ast
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from tunet_lib.config import Config
from tunet_lib.course import course_case
from tunet_lib.evaluation import read_scores
from tunet_lib.metrics import volume_ml
from tunet_lib.phantom import write_phantoms
from tunet_lib.postprocess import tumor_region
from tunet_lib.scans import load_label_map

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "phantoms"
QUIZZES = sorted((ROOT / "notebooks" / "quizzes").glob("*.json"))
# By chapter, how the caption of the picture in question begins, or goes on.
ASKED_ABOUT = {
    1: "Share of cases up to a volume",
    5: "the share of parameters is largest at the third",
    7: "The losses of whole and of tumor over the steps",
    9: "a noisy one-weight training for three learning rates",
    13: "A curve of the tumor volume that Algorithm 1 finds",
    14: "Tumor DSC against tumor volume",
}


def asked_of_a_picture(path):
    """Give the questions that name a figure, and the place of the figure in its chapter."""
    questions = json.loads(path.read_text(encoding="utf-8"))
    found = [(one, re.search(r"Figure (\d+)\.(\d+)", one["question"])) for one in questions]
    return [(one, int(name[1]), int(name[2])) for one, name in found if name]


def pictures(chapter):
    """Give what each picture of a chapter shows, as `book/extensions/figures.py` numbers them."""
    found = []
    for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]:
        says = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        found += ["a viewer"] * "".join(cell["source"]).count('<div class="ct-viewer"')
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            page = "".join(data.get("text/html", ""))
            drawing = re.search(r'<svg [^>]*class="drawing.*?<title[^>]*>(.*?)</title>', page, re.S)
            if "image/png" in data or 'class="flipbook"' in page or drawing:
                found.append(says or (drawing[1] if drawing else ""))
    return found


def answers(chapter):
    """Give the answers to a chapter's question about a picture, the keyed one first."""
    (path,) = (path for path in QUIZZES if path.name.startswith(f"{chapter:02}_"))
    ((question, *_),) = asked_of_a_picture(path)
    first = sorted(question["answers"], key=lambda one: not one["correct"])
    return [one["answer"] for one in first]


def right(chapter):
    """Give the keyed answer of a chapter's question about a picture."""
    return answers(chapter)[0]


def numbers(answer):
    """Give the numbers in an answer."""
    return np.array([float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", answer)])


def run_cells(chapter, *beginnings, **given):
    """Run the imports and functions of a chapter, then the cells that begin so; give all names."""
    (path,) = (ROOT / "notebooks").glob(f"{chapter:02}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    kept = ast.Import, ast.ImportFrom, ast.FunctionDef
    for source in sources[1:]:  # the first is for Colab
        tree = ast.parse(source)
        tree.body = [node for node in tree.body if isinstance(node, kept)]
        exec(compile(tree, path.name, "exec"), given)
    for beginning in beginnings:
        (source,) = (source for source in sources if source.startswith(beginning))
        exec(compile(source, path.name, "exec"), given)
    return given


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_a_picture_that_is_asked_about_is_the_one_with_that_number(path):
    for _, chapter, place in asked_of_a_picture(path):
        assert chapter == int(path.stem[:2])
        shown = pictures(ROOT / "notebooks" / f"{path.stem}.ipynb")
        assert ASKED_ABOUT[chapter] in shown[place - 1]


def test_six_chapters_ask_of_a_picture():
    asking = {int(path.stem[:2]) for path in QUIZZES if asked_of_a_picture(path)}
    assert asking == set(ASKED_ABOUT)


def test_of_the_large_tumors():
    labels = [load_label_map(case.label_path) for case in write_phantoms(DATA)]
    ml = np.array([volume_ml(one.label == 2, one.spacing_mm) for one in labels])
    assert right(1) == f"About {(ml > 200).sum()}"
    assert f"About {(ml > 100).sum()}" in answers(1)  # read one tick too early


def test_of_the_levels_of_a_u_net():
    filters, voxels = 2.0 ** np.arange(4), 8.0 ** -np.arange(4)
    memory = np.array([7, 7, 7, 3]) * filters * voxels  # 1 + 2 + 2 + 2, at the bottom 1 + 2
    left = 1 - memory[0] / memory.sum() / 2
    counts = np.array([125250, 525984, 2102592, 1328256])  # printed in the chapter
    assert right(5) == f"{left:.0%}, and {1 - counts[0] / counts.sum() / 2:.0%}".replace("%", " %")


@pytest.mark.slow
def test_of_two_losses_on_one_patch():
    """The training is the chapter's; its last digits differ from one machine to the next."""
    given = {"preset": "course", "steps": 21, "learning_rate": 4e-3, "case": course_case(DATA)}
    after = run_cells(7, "toy = {", "weight_of_whole =", **given)
    both, alone = (after[name][0][20] for name in ("both", "alone"))
    found = np.array([both.sum(), alone[1]])
    away = [abs(numbers(one) - found).max() for one in answers(7)]
    assert away[0] < min(0.1, *away[1:])


def test_of_three_learning_rates():
    paths = run_cells(9, "steps = np.arange(400)")["paths"]
    widest = [
        abs(paths[name][first : last + 1, :8]).max()
        for first, last in ((120, 180), (350, 400))
        for name in ("constant 0.1", "cosine from 0.1")
    ]
    away = [abs(numbers(one) - widest).max() for one in answers(9)]
    assert away[0] < 0.06  # to what the eye can read
    assert away[0] < min(away[1:]) / 3


def test_of_a_peak_that_grows():
    config = Config.preset("course")
    mm = np.array(config.grid_spacing_mm)
    places = np.moveaxis(np.indices((17, 21, 21)), 0, -1) - (8, 10, 10)
    ball = np.exp(-(((places * mm) ** 2).sum(axis=-1)) / 15**2)
    voxel_ml = math.prod(mm) / 1000
    small = config.small_tumor_voxels * math.prod(Config().grid_spacing_mm) / 1000 / voxel_ml
    nothing = np.zeros(ball.shape, bool)

    def found_ml(peak):
        return tumor_region(peak * ball, nothing, config, small_voxels=small).sum() * voxel_ml

    peaks = [float(number) for number in re.findall(r"0\.\d+", right(13))]
    assert [round(found_ml(peak) / 15, 0) for peak in peaks] == [1, 1, 1]
    falls = [
        peak for peak in np.arange(11, 100) if found_ml(peak / 100) < found_ml(peak / 100 - 0.01)
    ]
    assert len(falls) == 2
    assert peaks[0] < falls[0] / 100 < peaks[1] < falls[1] / 100 < peaks[2]


def test_of_the_tumors_of_middle_size():
    rows = read_scores(ROOT / "book" / "results" / "scores.csv")
    dsc = [
        row["native_tumor"]
        for row in rows
        if row["system"] == "ensemble_postprocess" and 30 <= row["tumor_ml"] < 60
    ]
    assert right(14) == f"{min(dsc):.0f} and nearly 0.8"
    assert max(dsc) == pytest.approx(0.77, abs=0.005)


@pytest.mark.parametrize("path", QUIZZES, ids=lambda path: path.stem)
def test_a_page_asks_what_is_in_the_file(path):
    cells = json.loads((ROOT / "notebooks" / f"{path.stem}.ipynb").read_text("utf-8"))["cells"]
    (asked,) = [cell for cell in cells if "".join(cell["source"]).startswith("quiz(")]
    code = "".join(asked["outputs"][1]["data"]["application/javascript"])
    stored, _ = json.JSONDecoder().raw_decode(code, code.index("=") + 1)
    assert stored == json.loads(path.read_text("utf-8"))
