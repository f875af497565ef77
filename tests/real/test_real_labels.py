"""Real KiTS19 label maps: all load, and the grid keeps their shape."""

import numpy as np
import pytest

from tunet_lib.config import Config
from tunet_lib.kits19 import find_cases, load_label_scan
from tunet_lib.metrics import kits19_score
from tunet_lib.preprocess import grid_for, label_from_grid, label_to_grid

ODD = (15, 23, 37, 39, 116, 125, 144, 157, 176)  # uint16, with a qform only
WIDE = 160  # 796 columns


@pytest.fixture
def cases(real):
    return {int(case.case_id[-5:]): case for case in find_cases(real / "kits19")}


def check(case):
    scan = load_label_scan(case.label_path)
    assert scan.volume_hu.dtype == np.uint8
    assert set(np.unique(scan.volume_hu)) == {0, 1, 2}, "no case of KiTS19 lacks a tumor"
    assert all(0.4 < mm < 5.1 for mm in scan.spacing_mm)
    assert scan.spacing_mm[1] == scan.spacing_mm[2]
    # Slices first, from head to feet, as KiTS19 stores them.
    np.testing.assert_allclose(np.abs(scan.affine[[2, 1, 0], [0, 1, 2]]), scan.spacing_mm, 1e-4)
    assert scan.volume_hu.shape == scan.source_shape
    return scan


def test_odd_label_files_load_like_the_rest(cases, report):
    present = [number for number in (*ODD, WIDE) if number in cases]
    for number in present:
        scan = check(cases[number])
        assert scan.volume_hu.shape[1:] == ((512, 796) if number == WIDE else (512, 512))
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
        scan = load_label_scan(cases[number].label_path)
        label, spacing_mm = scan.volume_hu, scan.spacing_mm
        grid = grid_for(label.shape, spacing_mm, config)
        back = label_from_grid(
            label_to_grid(label, spacing_mm, grid), grid, label.shape, spacing_mm
        )
        scores.append(kits19_score(back, label))
    whole, tumor = (
        float(np.mean([score[region] for score in scores])) for region in ("whole", "tumor")
    )
    report(f"grid round trip, {len(scores)} cases: DSC whole {whole:.4f}, tumor {tumor:.4f}")
    assert whole >= 0.965
    assert tumor >= 0.92
