"""What the chapters share: a case that no network of the book has seen, sources, and quizzes."""

from __future__ import annotations

import ast
import functools
import inspect
import math
import random
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config
from tunet_lib.ensemble import mean_maps
from tunet_lib.folds import split_folds
from tunet_lib.grid import Grid, grid_for, label_to_grid
from tunet_lib.kits19 import Case, Scan, find_cases, load_label, load_label_scan, load_scan
from tunet_lib.phantom import write_phantoms
from tunet_lib.pipeline import COURSE_WEIGHTS
from tunet_lib.preprocess import prepare_volume
from tunet_lib.quiet import load_keras

if TYPE_CHECKING:
    import keras
    from IPython.display import Markdown

DATA = Path("..") / "data" / "phantoms"  # as seen from notebooks/
TYPICAL_TUMOR_ML = 30.0  # the median of KiTS19


@dataclass(frozen=True)
class CourseCase:
    """One held-out case, on its own voxels and on the grid, with the networks' maps on demand.

    Attributes
    ----------
    case_id
        Its name, such as ``case_00068``.
    config
        The configuration that the course's networks were trained with.
    scan
        The CT on its own voxels, HU.
    truth
        Its label map, uint8 (z, y, x): 0 background, 1 kidney, 2 tumor.
    grid
        Where the grid lies in the scan.
    truth_on_grid
        The label map on the grid.
    volumes
        Median filtered or not → normalized grid volume, float32.
    """

    case_id: str
    config: Config
    scan: Scan
    truth: np.ndarray
    grid: Grid
    truth_on_grid: np.ndarray
    volumes: dict[bool, np.ndarray]

    def maps(self, name: str) -> np.ndarray:
        """Predict with one of the course's networks, such as ``"tunet"``, once.

        Returns
        -------
        numpy.ndarray
            (z, y, x, 2) float32, whole and tumor probabilities; of an L-Net (z, y, x, 1).
        """
        if name not in self._kept:
            from tunet_lib.inference import predict_volume

            variant = VARIANTS[name]
            volume = self.volumes[variant.median]
            model = _loaded_once(name)
            self._kept[name] = predict_volume(model, variant, volume, self.config, batch_size=4)
        return self._kept[name]

    def ensemble(self) -> np.ndarray:
        """Average the maps of the four TuNets (Eq. 4): (z, y, x, 2) float32."""
        return mean_maps(self.maps(name) for name in ENSEMBLE)

    def lnet_prob(self) -> np.ndarray:
        """Average the maps of both L-Nets: (z, y, x) float32."""
        return mean_maps(self.maps(name) for name in LOCALIZERS)[..., 0]

    @functools.cached_property
    def _kept(self) -> dict[str, np.ndarray]:
        return {}


def held_out_cases(data: str | Path = DATA) -> list[Case]:
    """Give the cases that the course's networks were not trained on: fold 0.

    The phantoms are made first if they are not there (half a minute).
    """
    write_phantoms(data)
    cases = find_cases(data)
    config = course_config()
    unseen = split_folds([case.case_id for case in cases], config.folds, config.seed)[0]
    return [case for case in cases if case.case_id in unseen]


def course_case(data: str | Path = DATA) -> CourseCase:
    """Give the held-out case whose tumor is nearest to 30 ml, the median of KiTS19, prepared.

    A rule that knows nothing of the results: a case chosen for its score would mislead.
    """
    case = min(held_out_cases(data), key=lambda case: abs(_tumor_ml(case) - TYPICAL_TUMOR_ML))
    return prepared_case(case)


def prepared_case(case: Case) -> CourseCase:
    """Load a case and bring it to the course's grid."""
    config = course_config()
    scan = load_scan(case.image_path)  # type: ignore[arg-type]
    truth = load_label(case.label_path, scan)  # type: ignore[arg-type]
    grid = grid_for(scan.volume_hu.shape, scan.spacing_mm, config)
    return CourseCase(
        case.case_id,
        config,
        scan,
        truth,
        grid,
        label_to_grid(truth, scan.spacing_mm, grid),
        {
            median: prepare_volume(scan.volume_hu, scan.spacing_mm, config, median)
            for median in (False, True)
        },
    )


def course_config() -> Config:
    """Give the configuration that the course's networks were trained with."""
    return Config.load(COURSE_WEIGHTS / "tunet" / "config.json")


def course_model(name: str) -> keras.Model:
    """Load one of the course's ten networks, trained on the other four folds."""
    load_keras()
    from tunet_lib.networks import load_model

    return load_model(COURSE_WEIGHTS / name)[0]


@functools.cache
def _loaded_once(name: str) -> keras.Model:
    """Keep the networks behind the maps: a new one is traced anew, which takes as long as a map."""
    return course_model(name)


def show_source(thing: Any, docstring: bool = False) -> Markdown:
    """Show a function or class as it stands in the library, by default without its docstring."""
    from IPython.display import Markdown

    source = textwrap.dedent(inspect.getsource(thing))
    if not docstring:
        source = _without_docstrings(source)
    return Markdown(f"```python\n{source.rstrip()}\n```")


def quiz(chapter: str) -> None:
    """Ask the questions of a chapter, from ``quizzes/`` beside the notebooks."""
    from jupyterquiz import display_quiz

    # papermill runs a notebook where it is called, mostly in the repository's root.
    folder = Path("quizzes") if Path("quizzes").exists() else Path("notebooks") / "quizzes"
    state = random.getstate()
    random.seed(chapter)  # the quiz's name in the page is drawn: the same one each time
    display_quiz(str(folder / f"{chapter}.json"), shuffle_answers=False)
    random.setstate(state)


def _without_docstrings(source: str) -> str:
    lines: list[str | None] = list(source.splitlines())
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or len(node.body) < 2:
            continue
        first, second = node.body[:2]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            # With the empty lines that follow it
            lines[first.lineno - 1 : second.lineno - 1] = [None] * (second.lineno - first.lineno)
    return "\n".join(line for line in lines if line is not None)


def _tumor_ml(case: Case) -> float:
    label = load_label_scan(case.label_path)  # type: ignore[arg-type]
    return float((label.volume_hu == 2).sum() * math.prod(label.spacing_mm) / 1000)
