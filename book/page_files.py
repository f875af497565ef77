"""Make what the pages load on demand: networks, and phantoms with what the networks find in them.

``python book/page_files.py`` writes ``book/_static/made/``; ``make book`` calls it.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tunet_lib import plots
from tunet_lib.course import CourseCase, course_case, held_out_cases, tumor_ml
from tunet_lib.export import export_onnx
from tunet_lib.files import atomic_path, save_json
from tunet_lib.kits19 import Case
from tunet_lib.localization import lnet_mask
from tunet_lib.postprocess import postprocess
from tunet_lib.predict import COURSE_WEIGHTS
from tunet_lib.scans import Scan, save_label

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "phantoms"
MADE = ROOT / "book" / "_static" / "made"
PAGE_NETWORKS = ("lnet", "tunet")  # one of each: the whole ensemble would be four times the size


def main() -> None:
    """Make all of it."""
    export_onnx(COURSE_WEIGHTS, MADE / "networks", variants=PAGE_NETWORKS, half=True)
    cases = chosen_cases()
    for name, case in cases.items():
        write_case(name, case, CourseCase.load(case))
    save_json(MADE / "cases.json", {name: case.case_id for name, case in cases.items()})


def chosen_cases() -> dict[str, Case]:
    """Choose three of the cases that no network of the course was trained on.

    By their true tumors, which know nothing of the results: typical, the smallest, the largest.
    """
    held_out = held_out_cases(DATA)
    by_size = sorted(held_out, key=tumor_ml)
    typical = course_case(DATA).case_id
    chosen = {case.case_id: case for case in held_out}[typical]
    return {"typical": chosen, "small": by_size[0], "large": by_size[-1]}


def found_in(case: CourseCase) -> np.ndarray:
    """Give the label map of all the course's networks, from their maps that come with the book."""
    mask = lnet_mask(case.lnet_prob(), case.config)
    maps = case.ensemble()
    label = postprocess(maps[..., 0], maps[..., 1], case.config, lnet_mask=mask)
    return case.placement.label_from_grid(label)


def write_case(name: str, case: Case, prepared: CourseCase) -> None:
    """Write one case as a script, which a page can load from a folder as well as from a server."""
    result = MADE / f"{name}_found.nii.gz"
    save_label(found_in(prepared), prepared.scan, result)
    paths = {"ct": case.image_path, "truth": case.label_path, "found": result}
    packed = {key: base64.b64encode(path.read_bytes()).decode() for key, path in paths.items()}
    packed["name"] = f"{case.case_id}.nii.gz"
    result.unlink()
    with atomic_path(MADE / f"{name}.js") as temporary:
        text = f"(window.ctCases ??= {{}}).{name} = {json.dumps(packed)};\n"
        temporary.write_text(text, encoding="utf-8")
    figure = picture(prepared.scan, prepared.truth)
    with atomic_path(MADE / f"{name}.webp") as temporary:
        figure.savefig(temporary, dpi=200, facecolor="black", pil_kwargs={"quality": 80})


def picture(scan: Scan, truth: np.ndarray) -> Figure:
    """Draw the slices of all three planes in which the tumor is largest, cut to the body."""
    planes = [(axis, plots.largest_slice(truth, axis)) for axis in (1, 2, 0)]
    cuts = [(*[slice(None)] * axis, index) for axis, index in planes]
    sides = [plots.body(scan.volume_hu[cut]) for cut in cuts]
    spacings = [np.delete(scan.spacing_mm, axis) for axis, _ in planes]
    sizes_mm = [
        ((bottom - top) * row_mm, (right - left) * column_mm)
        for (top, bottom, left, right), (row_mm, column_mm) in zip(sides, spacings, strict=True)
    ]
    heights, widths = zip(*sizes_mm, strict=True)
    figure = Figure((8, 8 * max(heights) / sum(widths)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    axes = figure.subplots(1, 3, width_ratios=widths)
    for ax, cut, (top, bottom, left, right) in zip(axes, cuts, sides, strict=True):
        plots.show_slice(scan.volume_hu, cut, spacing_mm=scan.spacing_mm, ax=ax)
        plots.show_outlines(ax, truth[cut], names=False)
        ax.images[0].set_interpolation("bicubic")
        ax.set(xlim=(left, right), ylim=(bottom, top))
    return figure


if __name__ == "__main__":
    main()
