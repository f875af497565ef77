"""CT slices with the outlines of whole and tumor, one alone or in rows as in Fig. 5."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tunet_lib.plots.style import PALETTE, black_edge, new_figure

if TYPE_CHECKING:  # takes long to load, so the functions that need it import it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW_HU = (-160.0, 240.0)  # the usual abdominal window

_NAME_POINTS = (10, 26)  # a region's name, high and wide; axes grow a little when laid out
_MAY_HIDE = 0.3  # of a name
_STYLES: dict[str, Any] = {"truth": "solid", "predicted": (0, (2.5, 1.5))}


@dataclass(frozen=True)
class Example:
    """One row of `figure_5`.

    Attributes
    ----------
    volume_hu
        CT, shape (z, y, x), HU.
    truth, result
        Label maps of the same shape: 0 background, 1 kidney, 2 tumor.
    spacing_mm
        Voxel size (z, y, x).
    title
        Text at the left of the row, such as the case's name.
    scores
        Text under the result, such as its DSCs.
    """

    volume_hu: np.ndarray
    truth: np.ndarray
    result: np.ndarray
    spacing_mm: Sequence[float]
    title: str = ""
    scores: str = ""


def largest_slice(label: np.ndarray, axis: int = 0) -> int:
    """Return the slice with the most tumor.

    Without tumor it is the slice with the most kidney, and without that the middle one.

    Parameters
    ----------
    label
        Label map, shape (z, y, x), 0 background, 1 kidney, 2 tumor.
    axis
        The axis that is cut: 0 axial, 1 coronal, 2 sagittal.
    """
    others = tuple(other for other in range(3) if other != axis % 3)
    for lowest in (2, 1):
        voxels = np.count_nonzero(label >= lowest, axis=others)
        if voxels.any():
            return int(voxels.argmax())
    return label.shape[axis] // 2


def show_slice(
    volume_hu: np.ndarray,
    index: int | tuple[int | slice, ...],
    *,
    spacing_mm: Sequence[float],
    window_hu: tuple[float, float] = WINDOW_HU,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw one slice of a CT, at the true ratio of height to width.

    Parameters
    ----------
    volume_hu
        CT, shape (z, y, x), HU.
    index
        The slice, as NumPy takes it: ``z``, ``np.s_[:, y]`` or ``np.s_[:, :, x]``.
    spacing_mm
        Voxel size (z, y, x).
    window_hu
        The values shown black and white.
    title
        Text above the image.
    ax
        Draw here, in the caller's own figure, instead of in a new one.

    Raises
    ------
    ValueError
        The CT has not three axes, or the index is no single slice, or the spacing is impossible.
    IndexError
        The slice is outside the CT.
    """
    cut = index if isinstance(index, tuple) else (index,)
    axes = [axis for axis, at in enumerate(cut) if not isinstance(at, slice)]
    if volume_hu.ndim != 3 or len(axes) != 1:
        raise ValueError(f"{index} is no slice (z, [:, y] or [:, :, x]) of CT {volume_hu.shape}")
    check_spacing(spacing_mm)
    image = volume_hu[index].astype(np.float32)
    row_mm, column_mm = np.delete(np.asarray(spacing_mm, float), axes)
    aspect = row_mm / column_mm
    if ax is None:
        height, width = image.shape
        ax = new_figure(0.75 * aspect * height / width).subplots()
    low, high = window_hu
    ax.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
    ax.set(xticks=[], yticks=[])
    ax.autoscale(False)  # outlines reach half a voxel beyond the image
    ax.spines[:].set_visible(False)
    ax.set_anchor("N")  # in a row of slices of unlike shapes the titles are level
    ax.set_title(title, fontsize=11)
    return cast("Figure", ax.figure)


def check_spacing(spacing_mm: Sequence[float]) -> None:
    """Refuse what is no voxel size.

    Parameters
    ----------
    spacing_mm
        Voxel size (z, y, x).

    Raises
    ------
    ValueError
        It is not three positive numbers.
    """
    if len(spacing_mm) != 3 or not all(np.isfinite(mm) and mm > 0 for mm in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers (z, y, x), not {spacing_mm}")


def show_outlines(
    ax: Axes,
    truth: np.ndarray,
    predicted: np.ndarray | None = None,
    *,
    fill: bool = False,
    names: bool = True,
) -> None:
    """Outline whole and tumor on a slice.

    An outline runs half-way between the voxels inside and outside. The truth is solid; the
    prediction is dashed.

    Parameters
    ----------
    ax
        Where `show_slice` has drawn the slice.
    truth, predicted
        The same slice of label maps: 0 background, 1 kidney, 2 tumor.
    fill
        Tint kidney and tumor as well.
    names
        Write the names beside the outlines.

    Raises
    ------
    ValueError
        A label map has another shape than the slice.
    """
    shape = ax.images[0].get_size()
    labels = [truth] if predicted is None else [truth, predicted]
    for label, style in zip(labels, _STYLES.values(), strict=False):
        if label.shape != shape:
            raise ValueError(f"slice {shape} and label map {label.shape} differ in shape")
        _draw_outlines(ax, label, style, fill)
    taken = np.any([label > 0 for label in labels], axis=0)
    if names:
        _name_regions(ax, labels, taken)
    if predicted is not None:
        _draw_style_key(ax, taken)


def body(image: np.ndarray, above: float = WINDOW_HU[0]) -> tuple[float, float, float, float]:
    """Tell where a slice is more than air, with a small margin: top, bottom, left, right.

    They are the edges of pixels, as `Axes.set` takes them; all of the slice if it is air. A row or
    column of which only one pixel in twenty is more than air is noise, or the table.

    Parameters
    ----------
    image
        Slice, shape (rows, columns).
    above
        What is air: values up to this one.
    """
    sides: list[float] = []
    for axis, size in ((1, image.shape[0]), (0, image.shape[1])):
        inside = np.flatnonzero((image > above).mean(axis=axis) > 0.05)
        first, last = (inside[0], inside[-1]) if inside.size else (0, size - 1)
        margin = 0.03 * (last - first + 1)
        sides += [max(-0.5, first - 0.5 - margin), min(size - 0.5, last + 0.5 + margin)]
    top, bottom, left, right = sides
    return top, bottom, left, right


def figure_5(examples: Sequence[Example]) -> Figure:
    """Draw CT, ground truth and result side by side, one row a case.

    The axial slice is the one where the true tumor is largest, cut to the body, and drawn smoothly
    from voxel to voxel.

    Parameters
    ----------
    examples
        The rows, top to bottom.

    Raises
    ------
    ValueError
        No examples, or one whose arrays do not fit together.

    Notes
    -----
    Source: the layout of Vu et al. 2019, Fig. 5.
    """
    if not examples:
        raise ValueError("figure_5 needs at least one example")
    heights, bodies = [], []
    for example in examples:
        shapes = [a.shape for a in (example.volume_hu, example.truth, example.result)]
        if len(set(shapes)) > 1:
            raise ValueError(f"CT, truth and result differ in shape: {shapes}")
        top, bottom, left, right = body(example.volume_hu[largest_slice(example.truth)])
        check_spacing(example.spacing_mm)
        _, row_mm, column_mm = example.spacing_mm
        heights.append((bottom - top) * row_mm / ((right - left) * column_mm))
        bodies.append((top, bottom, left, right))
    figure = new_figure(sum(heights) / 3 + 0.04 * len(heights))
    axes = figure.subplots(len(examples), 3, squeeze=False, height_ratios=heights)
    for number, (row, example, sides) in enumerate(zip(axes, examples, bodies, strict=True)):
        index = largest_slice(example.truth)
        top, bottom, left, right = sides
        for ax in row:
            show_slice(example.volume_hu, index, spacing_mm=example.spacing_mm, ax=ax)
            ax.images[0].set_interpolation("bicubic")
            ax.set(xlim=(left, right), ylim=(bottom, top))
        show_outlines(row[1], example.truth[index], fill=True, names=number == 0)
        show_outlines(row[2], example.result[index], fill=True, names=False)
        row[0].set_ylabel(example.title, fontsize=9)
        row[0].set_xlabel(f"slice {index}", fontsize=9)
        row[2].set_xlabel(example.scores, fontsize=9)
    for ax, title in zip(axes[0], ("CT", "ground truth", "result"), strict=True):
        ax.set_title(title, fontsize=11)
    return figure


def _draw_outlines(ax: Axes, label: np.ndarray, style: Any, fill: bool) -> None:
    for region, mask in (("whole", label > 0), ("tumor", label == 2)):
        if not mask.any():
            continue
        color = PALETTE[region]
        if fill:
            area = label == 1 if region == "whole" else mask  # the tints must not mix
            if area.any():
                ax.contourf(*_framed(area), levels=[0.5, 1.5], colors=[color], alpha=0.4)
        if region == "tumor" and style != "solid":
            # Where both run along one border, blue would else fill the gaps of orange.
            ax.contour(*_framed(mask), levels=[0.5], colors=["black"], linewidths=2.4)
        lines = ax.contour(*_framed(mask), levels=[0.5], colors=[color], linewidths=1.3)
        lines.set(linestyle=style, label=region, path_effects=black_edge(2.4))


def _framed(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # The frame of background closes outlines at the edge of the image.
    rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
    return columns, rows, np.pad(mask, 1).astype(np.float32)


def _name_regions(ax: Axes, labels: Sequence[np.ndarray], taken: np.ndarray) -> None:
    """Write whole above itself and tumor below, or where less is hidden if that hides much.

    `taken` is where the outlines are; the names are added to it. No name lies on another.
    """
    points = ax.get_window_extent().width * 72 / ax.figure.dpi
    per_point = float(np.ptp(ax.get_xlim())) / points  # columns
    size = np.array([per_point / float(ax.get_aspect()), per_point]) * _NAME_POINTS  # rows, columns
    named = np.zeros_like(taken)

    def harm(place: tuple[int, np.ndarray]) -> tuple[float, int, float]:
        axis, spot = place
        # The corner of a name may touch another's: its letters do not fill it.
        on_a_name = float(named[_under(spot, size)].sum() / np.prod(np.ceil(size)))
        return max(0.1, on_a_name), axis, max(_MAY_HIDE, _hidden(taken, spot, size))

    for region, lowest, sides in (("whole", 1, (-1, 1)), ("tumor", 2, (1, -1))):
        masks = [np.any([label >= lowest for label in labels], axis=0), labels[0] >= lowest]
        masks = [mask for mask in masks if mask.any()]
        if not masks:
            continue
        places = itertools.product((0, 1), sides, masks)
        spots = [(axis, _beside(mask, axis, side, size)) for axis, side, mask in places]
        _, spot = min(spots, key=harm)  # of those that hide little the first
        row, column = spot
        ax.text(
            column, row, region, ha="center", va="center", color=PALETTE[region], fontsize=9,
            fontweight="bold", path_effects=black_edge(1.6),
        )  # fmt: skip
        taken[_under(spot, size)] = named[_under(spot, size)] = True


def _beside(mask: np.ndarray, axis: int, side: int, size: np.ndarray) -> np.ndarray:
    """Give the middle (row, column) of a name above (axis 0) or left of (1) a region, -1, or 1."""
    places = np.stack(np.nonzero(mask))
    at = places[axis].argmin() if side < 0 else places[axis].argmax()
    spot = places[:, at].astype(float)
    # Half of it, and a gap of some points to the outline.
    spot[axis] += side * (0.5 + (0.9, 0.6)[axis] * size[axis])
    # At the edge of the image the name goes inside.
    return np.clip(spot, size / 2, np.maximum(size / 2, mask.shape - size / 2))


def _under(spot: np.ndarray, size: np.ndarray) -> tuple[slice, slice]:
    """Give the voxels that a name covers."""
    first = np.round(spot - size / 2).astype(int)
    last = first + np.ceil(size).astype(int)
    return slice(*np.maximum([first[0], last[0]], 0)), slice(*np.maximum([first[1], last[1]], 0))


def _hidden(taken: np.ndarray, spot: np.ndarray, size: np.ndarray) -> float:
    """Say how much of a name lies on outlined voxels or other names, or is out of the image."""
    return 1 - float((~taken[_under(spot, size)]).sum() / np.prod(np.ceil(size)))


def _draw_style_key(ax: Axes, taken: np.ndarray) -> None:
    from matplotlib.lines import Line2D

    # In the corner of what is seen that hides least, taken larger than the key.
    (left, right), (top, bottom) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    seen = taken[round(top + 0.5) : round(bottom + 0.5), round(left + 0.5) : round(right + 0.5)]
    high, wide = (-(-2 * size // 5) for size in seen.shape)
    sides = {"lower": slice(-high, None), "upper": slice(high)}
    across = {"left": slice(wide), "right": slice(-wide, None)}
    hidden: dict[Any, int] = {
        f"{side} {half}": seen[rows, columns].sum()
        for side, rows in sides.items()
        for half, columns in across.items()
    }
    handles = [
        Line2D([], [], color="white", linestyle=style, label=name)
        for name, style in _STYLES.items()
    ]
    ax.legend(
        handles=handles, loc=min(hidden, key=hidden.__getitem__), fontsize=9, labelcolor="white",
        facecolor="black", edgecolor="none", framealpha=0.7, handlelength=2.5,
    )  # fmt: skip
