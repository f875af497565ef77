"""Two probability maps on the grid to a label map .nii.gz on 512x512x216."""

from __future__ import annotations

import functools
import gzip
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks.cases import full_size_case
from benchmarks.harness import Measured, compare
from tunet_lib.config import Config
from tunet_lib.kits19 import require_image, require_label
from tunet_lib.placement import Placement
from tunet_lib.scans import ScanFile, load_label, open_scan, save_label

CONFIG = Config.preset("paper")
OUT = Path(tempfile.gettempdir()) / "tunet_benchmark.nii.gz"


@functools.cache
def maps() -> tuple[ScanFile, Placement, np.ndarray, np.ndarray]:
    """Give a scan, its place on the grid, and maps that are smooth where the labels end."""
    case = full_size_case()
    scan = open_scan(require_image(case))
    placement = Placement(scan, CONFIG)
    label = placement.label_to_grid(load_label(require_label(case)))
    whole, tumor = (
        ndimage.gaussian_filter((label >= least).astype(np.float32), 0.8) for least in (1, 2)
    )
    return scan, placement, whole, tumor


def read_back() -> np.ndarray:
    """Read the file that was written."""
    return np.asanyarray(nib.load(OUT).dataobj)


def ours() -> None:
    """Go back with tunet_lib."""
    scan, placement, whole, tumor = maps()
    save_label(placement.label_from_maps(whole, tumor), scan, OUT)


def with_scipy() -> None:
    """Go back with scipy.ndimage.zoom: crop to the scan, zoom linearly, cut, write."""
    scan, placement, whole, tumor = maps()
    label = np.zeros(scan.shape, np.uint8)
    for value, prob in ((1, whole), (2, tumor)):
        box, zoom, extra = [], [], []
        for count, scan_mm, size, grid_mm in zip(
            scan.shape,
            scan.spacing_mm,
            placement.grid_shape,
            placement.grid_spacing_mm,
            strict=True,
        ):
            # Zooming is about whole voxels: take one more on each side, and cut it off again.
            half = min(int(np.ceil(count * scan_mm / grid_mm / 2)) + 1, size // 2)
            box.append(slice(size // 2 - half, size // 2 + half))
            zoom.append(round(2 * half * grid_mm / scan_mm) / (2 * half))
            extra.append(round(2 * half * zoom[-1]) - count)
        fine = ndimage.zoom(prob[tuple(box)], zoom, order=1, mode="nearest", grid_mode=True)
        cut = tuple(slice(e // 2, e // 2 + n) for e, n in zip(extra, scan.shape, strict=True))
        label[fine[cut] >= 0.5] = value
    _write(label, scan)


def with_simpleitk() -> None:
    """Go back with SimpleITK."""
    import SimpleITK as sitk

    scan, placement, whole, tumor = maps()
    reference = sitk.Image([int(n) for n in reversed(scan.shape)], sitk.sitkUInt8)
    reference.SetSpacing([float(s) for s in reversed(scan.spacing_mm)])
    label = None
    for prob in (whole, tumor):
        image = sitk.GetImageFromArray(prob)
        image.SetSpacing([float(s) for s in reversed(placement.grid_spacing_mm)])
        image.SetOrigin(
            [
                (n - 1) / 2 * s - (m - 1) / 2 * t
                for n, s, m, t in zip(
                    reversed(scan.shape),
                    reversed(scan.spacing_mm),
                    reversed(placement.grid_shape),
                    reversed(placement.grid_spacing_mm),
                    strict=True,
                )
            ]
        )
        fine = sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, 0.0)
        mask = sitk.BinaryThreshold(fine, 0.5, 2.0)
        label = mask if label is None else sitk.Maximum(label, mask * 2)
    # Written with the file's own axes, as the others do: z first.
    turned = sitk.PermuteAxes(label, [2, 1, 0])
    sitk.WriteImage(turned, str(OUT), useCompression=True, compressionLevel=1)


def with_monai() -> None:
    """Go back with MONAI's resampling, as the inverses of its transforms do it."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import SpatialResample

    scan, placement, whole, tumor = maps()
    offset = [
        (n - 1) / 2 * s - (m - 1) / 2 * t
        for n, s, m, t in zip(
            scan.shape,
            scan.spacing_mm,
            placement.grid_shape,
            placement.grid_spacing_mm,
            strict=True,
        )
    ]
    affine = np.diag([*placement.grid_spacing_mm, 1.0])
    affine[:3, 3] = offset
    both = MetaTensor(torch.from_numpy(np.stack([whole, tumor])), affine=torch.tensor(affine))
    target = torch.tensor(np.diag([*scan.spacing_mm, 1.0]))
    resample = SpatialResample(mode="bilinear", padding_mode="border", align_corners=True)
    fine: Any = resample(both, dst_affine=target, spatial_size=scan.shape)
    label = (fine[0] >= 0.5).to(torch.uint8)
    label[fine[1] >= 0.5] = 2
    _write(np.asarray(label), scan)


def _write(label: np.ndarray, scan: ScanFile) -> None:
    image = nib.Nifti1Image(label, scan.affine)
    with gzip.open(OUT, "wb", 1) as stream:
        image.to_stream(stream)


def measure() -> list[Measured]:
    """Measure this row; the outputs are compared as DSC of the label maps."""

    def labeled(work: Any) -> Any:
        def run() -> np.ndarray:
            work()
            return OUT.read_bytes()  # type: ignore[return-value]

        return run

    def agree(one: Any, other: Any) -> str:
        first, second = (
            np.asanyarray(nib.Nifti1Image.from_bytes(gzip.decompress(raw)).dataobj)
            for raw in (one, other)
        )
        dsc = 2 * ((first > 0) & (second > 0)).sum() / ((first > 0).sum() + (second > 0).sum())
        assert dsc > 0.98, dsc
        return f"DSC {dsc:.4f}"

    peers = {
        "scipy.ndimage.zoom": (labeled(with_scipy), 8.0),
        "SimpleITK": (labeled(with_simpleitk), 2.0),
        "MONAI": (labeled(with_monai), 5.0),
    }
    return compare("two maps to label 512x512x216 .nii.gz", labeled(ours), peers, agree)
