"""Draw the picture of the README and of links to the book: python book/result_picture.py.

It shows the case of the course, which no network has seen, with what the ensemble finds in it.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from tunet_lib import plots
from tunet_lib.course import course_case
from tunet_lib.metrics import kits19_score
from tunet_lib.predict import COURSE_WEIGHTS, predict_scan

PICTURE = Path(__file__).parent / "_static" / "result.png"
SIZE_PX = (1200, 630)  # as programs that show a link want it
GROUND, TEXT, QUIET = "#10161d", "#ffffff", "#b6c2cf"


def main() -> None:
    """Draw it and say what it shows."""
    case = course_case(Path(__file__).parents[1] / "data" / "phantoms")
    found = predict_scan(case.scan, COURSE_WEIGHTS)
    score = kits19_score(found, case.truth)
    scores = f"DSC: whole {score['whole']:.2f}, tumor {score['tumor']:.2f}"
    figure = Figure([pixels / 100 for pixels in SIZE_PX], facecolor=GROUND)
    figure.text(
        0.03, 0.87, "Finding a kidney tumor in a CT", color=TEXT, fontsize=40, weight="bold"
    )
    said = "One published method, built completely. A course, and its library: TuNet Book"
    figure.text(0.03, 0.79, said, color=QUIET, fontsize=20)
    z = plots.largest_slice(case.truth)
    top, bottom, left, right = plots.body(case.scan.volume_hu[z])
    for column, (title, label) in enumerate(
        {"CT": None, "drawn": case.truth, "found": found}.items()
    ):
        ax = figure.add_axes((0.03 + 0.318 * column, 0.13, 0.305, 0.58))
        plots.show_slice(case.scan.volume_hu, z, spacing_mm=case.scan.spacing_mm, ax=ax)
        ax.images[0].set_interpolation("bicubic")
        ax.set(xlim=(left, right), ylim=(bottom, top))
        ax.set_title(title, color=TEXT, fontsize=18, loc="left")
        if label is not None:
            plots.show_outlines(ax, label[z], fill=True, names=False)
    colors = (("kidney", "whole"), ("tumor", "tumor"))
    for place, (name, region) in zip((0.03, 0.12), colors, strict=True):
        figure.text(place, 0.05, name, color=plots.PALETTE[region], fontsize=18, weight="bold")
    about = f"a synthetic CT, {case.case_id}, unseen in training   {scores}"
    figure.text(0.97, 0.05, about, color=QUIET, fontsize=16, ha="right")
    figure.savefig(PICTURE, dpi=100)
    print(f"{case.case_id}, slice {z}: {scores}")


if __name__ == "__main__":
    main()
