"""What the chapters share: a case that no network of the book has seen, sources, and quizzes.

All chapters, from 01 (``notebooks/01_kits19.ipynb``) on.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import random
import textwrap
import tokenize
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.config import ENSEMBLE, LOCALIZERS, Config
from tunet_lib.ensemble import mean_maps
from tunet_lib.folds import split_folds
from tunet_lib.kits19 import Case, find_cases, require_image, require_label
from tunet_lib.metrics import volume_ml
from tunet_lib.model_folder import ModelFolder
from tunet_lib.phantom import write_phantoms
from tunet_lib.placement import Placement
from tunet_lib.predict import COURSE_WEIGHTS
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import Scan, load_label, load_label_map, load_scan

if TYPE_CHECKING:
    from IPython.display import Markdown

    from tunet_lib.model import Model

DATA = Path("..") / "data" / "phantoms"  # as seen from notebooks/
COURSE_MAPS = Path(__file__).parent / "course_maps"
STUDY_CASES = 210  # as many as KiTS19 has with labels; the chapters make the first 80 of them
FOLD = 1  # whose networks come with the book
TYPICAL_TUMOR_ML = 30.0  # the median of KiTS19
PAGE_COLUMNS = 76  # what a page shows of a line of code beside its contents


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
    placement
        Where the scan lies on the grid.
    truth_on_grid
        The label map on the grid.
    volumes
        Median filtered or not → normalized grid volume, float32.
    """

    case_id: str
    config: Config
    scan: Scan
    truth: np.ndarray
    placement: Placement
    truth_on_grid: np.ndarray
    volumes: dict[bool, np.ndarray]
    _kept: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, case: Case) -> CourseCase:
        """Load a case and bring it to the course's grid."""
        config = course_config()
        scan = load_scan(require_image(case))
        truth = load_label(require_label(case), scan)
        placement = Placement(scan, config)
        on_grid = placement.label_to_grid(truth)
        volumes = prepare_scan(scan, config, placement=placement)
        return cls(case.case_id, config, scan, truth, placement, on_grid, volumes)

    def maps(self, name: str) -> np.ndarray:
        """Give the maps of one of the course's networks, such as ``"tunet"``.

        Those of the held-out cases come with the book, in steps of 1/255: ten networks on
        fourteen cases would take two cores a quarter of an hour. Others are predicted, once.

        Returns
        -------
        numpy.ndarray
            (z, y, x, 2) float32, whole and tumor probabilities; of an L-Net (z, y, x, 1).
        """
        if name not in self._kept:
            stored = self._stored(name)
            self._kept[name] = self.predict(name) if stored is None else stored
        return self._kept[name]

    def predict(self, name: str) -> np.ndarray:
        """Predict with one of the course's networks here and now, as `maps` gives it."""
        return _loaded_once(name).predict(self.volumes, batch_size=4)

    def _stored(self, name: str) -> np.ndarray | None:
        path = COURSE_MAPS / f"{self.case_id}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as kept:
            # A folder of the reader's own may have a case of the same name.
            if name not in kept or kept["ct"] != self.digest():
                return None
            return kept[name].astype(np.float32) / 255

    def digest(self) -> int:
        """Tell the CT from others of its name: CRC-32 of its voxels."""
        return zlib.crc32(np.ascontiguousarray(self.scan.volume_hu).data)

    def ensemble(self) -> np.ndarray:
        """Average the maps of the four TuNets (Eq. 4): (z, y, x, 2) float32."""
        return mean_maps(self.maps(name) for name in ENSEMBLE)

    def lnet_prob(self) -> np.ndarray:
        """Average the maps of both L-Nets: (z, y, x) float32."""
        return mean_maps(self.maps(name) for name in LOCALIZERS)[..., 0]


def held_out_cases(data: str | Path = DATA) -> list[Case]:
    """Give the cases that the course's networks were not trained on: those of `FOLD`.

    The phantoms are made first if they are not there (half a minute): 80 of the study's 210,
    of which 14 are held out.
    """
    write_phantoms(data)
    config = course_config()
    study = [f"case_{k:05d}" for k in range(STUDY_CASES)]
    unseen = split_folds(study, config.folds, config.seed)[FOLD]
    return [case for case in find_cases(data) if case.case_id in unseen]


def course_case(data: str | Path = DATA) -> CourseCase:
    """Give the held-out case whose tumor is nearest to 30 ml, the median of KiTS19, prepared.

    A rule that knows nothing of the results: a case chosen for its score would mislead.
    """
    case = min(held_out_cases(data), key=lambda case: abs(tumor_ml(case) - TYPICAL_TUMOR_ML))
    return CourseCase.load(case)


def course_config() -> Config:
    """Give the configuration that the course's networks were trained with."""
    return ModelFolder(COURSE_WEIGHTS / "tunet").config()


def course_model(name: str) -> Model:
    """Load one of the course's ten networks, trained on the other four folds."""
    from tunet_lib.model import Model

    return Model.load(COURSE_WEIGHTS / name)


@functools.cache
def _loaded_once(name: str) -> Model:
    """Keep the networks behind the maps: a new one is traced anew, which takes as long as a map."""
    return course_model(name)


def show_source(thing: Any, docstring: bool = False) -> Markdown:
    """Show a function or class as it stands in the library, by default without its docstring.

    Its lines are broken anew at `PAGE_COLUMNS` where black is installed; a comment behind a
    longer one stands above it.
    """
    from IPython.display import Markdown

    source = textwrap.dedent(inspect.getsource(thing))
    if not docstring:
        source = _without_docstrings(source)
    with contextlib.suppress(ImportError):
        import black

        narrow = black.Mode(line_length=PAGE_COLUMNS)
        source = black.format_str(_comments_above(source), mode=narrow)
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
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            end = first.end_lineno or first.lineno
            if not (lines[end] or "").strip():
                end += 1  # the empty line that follows it
            lines[first.lineno - 1 : end] = [None] * (end - first.lineno + 1)
    return "\n".join(line for line in lines if line is not None)


def _comments_above(source: str) -> str:
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type != tokenize.COMMENT or len(token.line.rstrip()) <= PAGE_COLUMNS:
            continue
        code = token.line[:column].rstrip()
        indent = code[: len(code) - len(code.lstrip())]
        lines[row - 1] = f"{indent}{token.string}\n{code}" if code else lines[row - 1]
    return "\n".join(lines)


def tumor_ml(case: Case) -> float:
    """Give the volume of a case's true tumor on its own voxels, in ml."""
    truth = load_label_map(require_label(case))
    return volume_ml(truth.label == 2, truth.spacing_mm)
