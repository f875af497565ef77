"""One voxel of a CT in three planes, as a picture or moved by sliders."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.plots.slices import (
    WINDOW_HU,
    body,
    check_spacing,
    largest_slice,
    show_outlines,
    show_slice,
)
from tunet_lib.plots.style import PALETTE, black_edge, new_figure

if TYPE_CHECKING:  # both take long to load, so the functions that need them import them
    import ipywidgets
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLANES = ("axial", "coronal", "sagittal")  # by the axis that is cut
_LETTERS = ("APRL", "SIRL", "SIAP")  # top, bottom, left, right of the image


def three_planes(
    volume_hu: np.ndarray,
    label: np.ndarray | None = None,
    *,
    spacing_mm: Sequence[float],
    position: tuple[int, int, int] | None = None,
) -> Figure:
    """Draw the coronal, sagittal and axial slices through one voxel, all at one scale.

    They are cut to the body, by the same planes wherever the voxel lies, and drawn smoothly.

    Parameters
    ----------
    volume_hu
        CT, shape (z, y, x), HU, in IPL orientation.
    label
        Label map of the same shape: 0 background, 1 kidney, 2 tumor.
    spacing_mm
        Voxel size (z, y, x).
    position
        The voxel (z, y, x); by default one inside the largest slice of the tumor, or else the
        middle of the CT.

    Raises
    ------
    ValueError
        Shapes differ, or the spacing or the position is impossible.
    """
    voxel = _inside(volume_hu.shape, label) if position is None else position
    if not all(0 <= at < size for at, size in zip(voxel, volume_hu.shape, strict=True)):
        raise ValueError(f"position {voxel} is outside the CT {volume_hu.shape}")
    top, bottom, left, right = body(volume_hu.max(axis=0))
    sides = np.array([(-0.5, len(volume_hu) - 0.5), (top, bottom), (left, right)])
    depth, height, width = np.ptp(sides, axis=1) * spacing_mm
    figure = new_figure((depth + height) / (width + height) + 0.06)
    grid = figure.add_gridspec(2, 2, height_ratios=(depth, height), width_ratios=(width, height))
    for axis, cell in ((1, grid[0, 0]), (2, grid[0, 1]), (0, grid[1, 0])):
        ax = figure.add_subplot(cell)
        cut: tuple[int | slice, ...] = (*[slice(None)] * axis, voxel[axis])
        show_slice(volume_hu, cut, spacing_mm=spacing_mm, ax=ax)
        ax.images[0].set_interpolation("bicubic")
        rows, columns = np.delete(sides, axis, axis=0)
        ax.set(xlim=columns, ylim=rows[::-1])
        if label is not None:
            show_outlines(ax, label[cut], names=False)
        _draw_crosshair(ax, np.delete(voxel, axis), axis)
        ax.set_title(f"{_PLANES[axis]}, {'zyx'[axis]} = {voxel[axis]}", fontsize=10)
    ax = figure.add_subplot(grid[1, 1])
    ax.axis("off")
    _describe_voxel(ax, voxel, volume_hu, label)
    return figure


def three_plane_viewer(
    volume_hu: np.ndarray, label: np.ndarray | None = None, *, spacing_mm: Sequence[float]
) -> ipywidgets.DOMWidget:
    """Move through a CT in a running notebook.

    With the extra ``viewer`` in three planes and in 3-D, at once, as in the pages of the book.
    Without it `three_planes` is drawn anew wherever three sliders stand.

    Parameters
    ----------
    volume_hu, label, spacing_mm
        As for `three_planes`.

    Returns
    -------
    ipywidgets.DOMWidget
        An ``ipyniivue.NiiVue``, or a box of three sliders and the picture.

    Raises
    ------
    ValueError
        As for `three_planes`.
    """
    check_spacing(spacing_mm)
    if label is not None and label.shape != volume_hu.shape:
        raise ValueError(f"CT {volume_hu.shape} and label map {label.shape} differ in shape")
    try:
        return _niivue(volume_hu, label, spacing_mm)
    except ImportError:
        return _sliders(volume_hu, label, spacing_mm)


def _niivue(
    volume_hu: np.ndarray, label: np.ndarray | None, spacing_mm: Sequence[float]
) -> ipywidgets.DOMWidget:
    import ipyniivue
    import nibabel as nib

    # From (z, y, x), toward the feet, the back and the left, to RAS+ mm
    affine = np.eye(4)
    affine[:3, :3] = -np.fliplr(np.eye(3)) * np.asarray(spacing_mm, float)

    def volume(name: str, array: np.ndarray, shown: tuple[float, float]) -> ipyniivue.Volume:
        data = nib.Nifti1Image(array, affine).to_bytes()
        return ipyniivue.Volume(data=data, name=name, cal_min=shown[0], cal_max=shown[1])

    viewer = ipyniivue.NiiVue(
        height=480,
        is_radiological_convention=True,
        sagittal_nose_left=True,
        multiplanar_show_render=ipyniivue.ShowRender.ALWAYS,
    )
    volumes = [volume("ct.nii", volume_hu.astype(np.float32), WINDOW_HU)]
    if label is not None:
        outline = volume("label.nii", label.astype(np.uint8), (0, 2))
        outline.opacity = 0.5
        red, green, blue = zip(
            *map(_rgb, ("#000000", PALETTE["whole"], PALETTE["tumor"])), strict=True
        )
        colors = {"R": red, "G": green, "B": blue, "A": (0, 255, 255), "I": (0, 1, 2)}
        names = ["background", "kidney", "tumor"]
        outline.set_colormap_label(
            {key: list(value) for key, value in colors.items()} | {"labels": names}
        )
        volumes.append(outline)
    viewer.load_volumes(volumes)
    return viewer


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def _sliders(
    volume_hu: np.ndarray, label: np.ndarray | None, spacing_mm: Sequence[float]
) -> ipywidgets.DOMWidget:
    # An image widget works with any backend, and a saved notebook still shows its first picture.
    import ipywidgets

    start = _inside(volume_hu.shape, label)
    sliders = [
        ipywidgets.IntSlider(value=value, min=0, max=size - 1, description=name)
        for value, size, name in zip(
            start, volume_hu.shape, ("z, S–I", "y, A–P", "x, R–L"), strict=True
        )
    ]
    image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))

    def redraw(_change: object = None) -> None:
        z, y, x = (slider.value for slider in sliders)
        figure = three_planes(volume_hu, label, spacing_mm=spacing_mm, position=(z, y, x))
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=100)
        image.value = stream.getvalue()

    for slider in sliders:
        slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([*sliders, image])


def _inside(shape: Sequence[int], label: np.ndarray | None) -> tuple[int, int, int]:
    if label is None or not (label > 0).any():
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    z = largest_slice(label)
    voxels = np.argwhere(label[z] == label[z].max())
    y, x = voxels[len(voxels) // 2]
    return z, int(y), int(x)


def _draw_crosshair(ax: Axes, at: Sequence[int] | np.ndarray, axis: int) -> None:
    row, column = at
    line: dict[str, Any] = {"color": "white", "linewidth": 0.8, "alpha": 0.8}
    ax.axhline(row, 0.09, 0.91, **line)  # the margin is left to the letters
    ax.axvline(column, 0.09, 0.91, **line)
    places = ((0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom"),
              (0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"))  # fmt: skip
    style: dict[str, Any] = {"color": "white", "fontsize": 10, "path_effects": black_edge(1.6)}
    for letter, (x, y, ha, va) in zip(_LETTERS[axis], places, strict=True):
        ax.text(x, y, letter, transform=ax.transAxes, ha=ha, va=va, **style)


def _describe_voxel(
    ax: Axes, voxel: Sequence[int], volume_hu: np.ndarray, label: np.ndarray | None
) -> None:
    z, y, x = voxel
    ax.text(0.08, 0.9, f"{volume_hu[z, y, x]:.0f} HU", fontsize=14)
    if label is not None:
        value = int(label[z, y, x])
        name = {0: ": background", 1: ": kidney", 2: ": tumor"}.get(value, "")
        ax.text(0.08, 0.76, f"label {value}{name}", fontsize=10)
        for height, region in ((0.18, "whole"), (0.06, "tumor")):
            ax.plot([0.08, 0.22], [height + 0.025] * 2, color=PALETTE[region], linewidth=3)
            ax.text(0.27, height, region, fontsize=10)
    ax.set(xlim=(0, 1), ylim=(0, 1))
