"""DSC, HD95 and surface Dice of a case on its own voxels, 512x512x216."""

from __future__ import annotations

import numpy as np

from benchmarks.cases import SPACING_MM, full_size_case
from benchmarks.harness import Measured, compare
from tunet_lib.metrics import dice, surface_distances
from tunet_lib.scans import load_label

TOLERANCE_MM = 2.0
Figures = tuple[float, float, float]


def masks() -> tuple[np.ndarray, np.ndarray]:
    """Give the true whole region, and one shifted by two voxels in plane."""
    path = full_size_case().label_path
    assert path is not None
    truth = load_label(path) > 0
    return np.roll(truth, (0, 2, 2), (0, 1, 2)), truth


def measure() -> list[Measured]:
    """Measure this row."""
    predicted, truth = masks()

    def ours() -> Figures:
        surface = surface_distances(predicted, truth, SPACING_MM, tolerance_mm=TOLERANCE_MM)
        return dice(predicted, truth), surface.hd95_mm, surface.surface_dice

    def with_package() -> Figures:
        import surface_distance

        distances = surface_distance.compute_surface_distances(truth, predicted, SPACING_MM)
        return (
            surface_distance.compute_dice_coefficient(truth, predicted),
            surface_distance.compute_robust_hausdorff(distances, 95),
            surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM),
        )

    def with_monai() -> Figures:
        import torch
        from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

        one, other = (torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth))
        return (
            float(compute_dice(one, other)),
            float(compute_hausdorff_distance(one, other, percentile=95, spacing=SPACING_MM)),
            float(
                compute_surface_dice(
                    one,
                    other,
                    [TOLERANCE_MM],
                    include_background=True,
                    spacing=SPACING_MM,
                    use_subvoxels=True,
                )
            ),
        )

    def agree(ours: Figures, theirs: Figures) -> str:
        difference = np.abs(np.subtract(ours, theirs))
        # MONAI's HD95 counts voxels of the surface, where the others weight them by area.
        assert difference[0] < 1e-5, (ours, theirs)
        assert difference[2] < 1e-3, (ours, theirs)
        return "DSC, HD95 mm, surface Dice differ by " + ", ".join(f"{d:.1e}" for d in difference)

    peers = {"MONAI": (with_monai, 2.0), "surface-distance": (with_package, 2.0)}
    return compare("DSC, HD95, surface Dice on 512x512x216", ours, peers, agree, rounds=3)
