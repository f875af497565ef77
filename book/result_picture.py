"""Draw the picture of the README and of links to the book: python book/result_picture.py.

It shows the case of the course, which no network has seen and which is chosen by the size of its
tumor, not by its score, with what the ensemble finds in it and with the mean over all cases.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from page_files import DATA, found_in

from tunet_lib import plots
from tunet_lib.course import CourseCase, course_case
from tunet_lib.metrics import kits19_score

BOOK = Path(__file__).parent
PICTURE = BOOK / "_static" / "result.png"
TABLE = BOOK / "results" / "table_1.csv"
SIZE_PX = (1200, 630)  # as programs that show a link want it
GROUND, TEXT, QUIET = "#10161d", "#ffffff", "#b6c2cf"


def main() -> None:
    """Draw it and say what it shows."""
    case = course_case(DATA)
    found = found_in(case)
    said = words(case, found)
    # The words are kept in the file as well, so that a test can compare them.
    draw(case, found, said).savefig(PICTURE, dpi=100, metadata={"Description": " ".join(said)})
    print(*said, sep="\n")


def words(case: CourseCase, found: np.ndarray) -> tuple[str, str]:
    """Say what the picture shows, and how the ensemble does on the whole."""
    score = kits19_score(found, case.truth)
    with TABLE.open(encoding="utf-8") as stream:
        *_, last = csv.DictReader(stream)
    whole, tumor = float(last["whole_mean"]), float(last["tumor_mean"])
    return (
        f"A synthetic CT unseen in training, {case.case_id}: "
        f"DSC of the whole kidney {score['whole']:.2f}, of the tumor {score['tumor']:.2f}.",
        f"The mean over {last['cases']} such cases: {whole:.2f} and {tumor:.2f}.",
    )


def draw(case: CourseCase, found: np.ndarray, said: tuple[str, str]) -> Figure:
    """Draw CT, truth and result side by side, cut to the body."""
    figure = Figure([pixels / 100 for pixels in SIZE_PX], facecolor=GROUND)
    figure.text(
        0.03, 0.87, "Finding a kidney tumor in a CT", color=TEXT, fontsize=40, weight="bold"
    )
    about = "One published method, built completely. A course, and its library: TuNet Book"
    figure.text(0.03, 0.79, about, color=QUIET, fontsize=20)
    z = plots.largest_slice(case.truth)
    top, bottom, left, right = plots.body(case.scan.volume_hu[z])
    for column, (title, label) in enumerate(
        {"CT": None, "true outlines": case.truth, "found": found}.items()
    ):
        ax = figure.add_axes((0.03 + 0.318 * column, 0.18, 0.305, 0.55))
        plots.show_slice(case.scan.volume_hu, z, spacing_mm=case.scan.spacing_mm, ax=ax)
        ax.images[0].set_interpolation("bicubic")
        ax.set(xlim=(left, right), ylim=(bottom, top))
        ax.set_title(title, color=TEXT, fontsize=18, loc="left")
        if label is not None:
            plots.show_outlines(ax, label[z], fill=True, names=False)
    colors = (("kidney", "whole"), ("tumor", "tumor"))
    for place, (name, region) in zip((0.03, 0.12), colors, strict=True):
        figure.text(place, 0.045, name, color=plots.PALETTE[region], fontsize=18, weight="bold")
    for height, line in zip((0.1, 0.045), said, strict=True):
        figure.text(0.97, height, line, color=QUIET, fontsize=16, ha="right")
    return figure


if __name__ == "__main__":
    main()
