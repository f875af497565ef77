"""Real KiTS19 label maps: all load, and the grid keeps their shape."""

import numpy as np
import pytest

from tunet_lib.config import Config
from tunet_lib.kits19 import find_cases
from tunet_lib.metrics import kits19_score
from tunet_lib.placement import Placement
from tunet_lib.scans import load_label_map

ODD = (15, 23, 37, 39, 116, 125, 144, 157, 176)  # uint16, with a qform only
WIDE = 160  # 796 columns


@pytest.fixture
def cases(real):
    return {int(case.case_id[-5:]): case for case in find_cases(real / "kits19")}


def check(case):
    label_map = load_label_map(case.label_path)
    assert label_map.label.dtype == np.uint8
    assert all((label_map.label == value).any() for value in (0, 1, 2)), "none lacks a tumor"
    assert label_map.label.max() == 2
    z_mm, y_mm, x_mm = label_map.spacing_mm
    assert all(0.4 < mm < 5.1 for mm in (z_mm, y_mm, x_mm))
    assert y_mm == x_mm
    # Slices first, from head to feet, as KiTS19 stores them.
    sizes_mm = np.abs(label_map.affine[[2, 1, 0], [0, 1, 2]])
    np.testing.assert_allclose(sizes_mm, label_map.spacing_mm, 1e-4)
    assert label_map.label.shape == label_map.shape == label_map.file.shape
    return label_map


def test_odd_label_files_load_like_the_rest(cases, report):
    present = [number for number in (*ODD, WIDE) if number in cases]
    for number in present:
        label_map = check(cases[number])
        assert label_map.shape[1:] == ((512, 796) if number == WIDE else (512, 512))
    assert present
    report(f"odd label files that load like the rest: {present}")


def test_label_files_load(cases, report):
    chosen = list(cases)[:: max(1, -(-len(cases) // 40))]
    for number in chosen:
        check(cases[number])
    report(f"label files loaded: {len(chosen)} of {len(cases)}")


def test_the_paper_grid_keeps_kidneys_and_tumors(cases, report):
    """Nearest label in, linear and at least 0.5 back: the ceiling of every score."""
    config = Config.preset("paper")
    scores = []
    for number in list(cases)[:: max(1, len(cases) // 30)][:30]:
        label_map = load_label_map(cases[number].label_path)
        placement = Placement(label_map, config)
        back = placement.label_from_grid(placement.label_to_grid(label_map.label))
        scores.append(kits19_score(back, label_map.label))
    whole, tumor = (
        float(np.mean([score[region] for score in scores])) for region in ("whole", "tumor")
    )
    report(f"grid round trip, {len(scores)} cases: DSC whole {whole:.4f}, tumor {tumor:.4f}")
    assert whole >= 0.965
    assert tumor >= 0.92
