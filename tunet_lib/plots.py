"""Arrays in, figures out: CT slices with contours, the viewer, curves, and Table 1 as a plot.

Every function but the viewer returns a closed `matplotlib.figure.Figure`: pyplot has forgotten
it, so a notebook shows it once, as the value of the cell, and it can still be saved or changed.
Volumes are (z, y, x) in IPL orientation, so `imshow` shows them as radiologists do: anterior or
superior at the top, the patient's right at the left of the image.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:  # both take long to load, so the functions that need them import them
    import ipywidgets
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008: told apart with every common color-vision deficiency.
PALETTE: dict[str, str] = {
    "whole": "#56B4E9",
    "tumor": "#E69F00",
    "localizer": "#F0E442",
    "truth": "#009E73",
    "predicted": "#D55E00",
    "measured": "#0072B2",
    "paper": "#000000",
}
WINDOW_HU = (-160.0, 240.0)  # the usual abdominal window

_LINES = tuple(PALETTE[name] for name in ("measured", "tumor", "truth", "predicted", "whole"))
_PLANES = ("axial", "coronal", "sagittal")  # by the axis that is cut
_LETTERS = ("APRL", "SIRL", "SIAP")  # top, bottom, left, right of the image
_WIDTH_IN = 6.4
_DASHED: Any = (0, (2.5, 1.5))


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
    index
        The axial slice; by default the one where the true tumor is largest.
    """

    volume_hu: np.ndarray
    truth: np.ndarray
    result: np.ndarray
    spacing_mm: Sequence[float]
    title: str = ""
    scores: str = ""
    index: int | None = None


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
    others = tuple(other for other in range(3) if other != axis)
    for lowest in (2, 1):
        voxels = np.count_nonzero(label >= lowest, axis=others)
        if voxels.any():
            return int(voxels.argmax())
    return label.shape[axis] // 2


def show_slice(
    volume_hu: np.ndarray,
    index: int | None = None,
    *,
    spacing_mm: Sequence[float],
    axis: int = 0,
    truth: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    window_hu: tuple[float, float] = WINDOW_HU,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw one slice of a CT with the outlines of whole and tumor.

    An outline runs half-way between the voxels inside and outside. The truth is solid; the
    prediction is dashed.

    Parameters
    ----------
    volume_hu
        CT, shape (z, y, x), HU.
    index
        The slice; by default `largest_slice` of the truth, or else of the prediction.
    spacing_mm
        Voxel size (z, y, x).
    axis
        The axis that is cut: 0 axial, 1 coronal, 2 sagittal.
    truth, predicted
        Label maps of the CT's shape: 0 background, 1 kidney, 2 tumor.
    window_hu
        The values shown black and white.
    title
        Text above the image.
    ax
        Draw here, in the caller's own figure, instead of in a new one.

    Raises
    ------
    ValueError
        Shapes differ, or the spacing, the window, the axis or the slice is impossible.
    """
    _check(volume_hu, spacing_mm, window_hu, truth, predicted)
    if axis not in (0, 1, 2):
        raise ValueError(f"axis must be 0, 1 or 2, not {axis}")
    given = ((truth, "solid"), (predicted, _DASHED))
    labels = [(label, style) for label, style in given if label is not None]
    if index is None:
        index = largest_slice(labels[0][0] if labels else np.zeros_like(volume_hu, bool), axis)
    _check_index(index, axis, volume_hu.shape)
    height, width = np.delete(np.multiply(volume_hu.shape, spacing_mm), axis)
    ax = _figure(0.75 * height / width).subplots() if ax is None else ax
    _draw_ct(ax, volume_hu, index, axis, spacing_mm, window_hu)
    for label, style in labels:
        _draw_outlines(ax, label.take(index, axis), style)
    _name_regions(ax, [label.take(index, axis) for label, _ in labels])
    if len(labels) == 2:
        _draw_style_key(ax)
    ax.set_title(title or "", fontsize=11)
    return cast("Figure", ax.figure)


def figure_5(examples: Sequence[Example], *, window_hu: tuple[float, float] = WINDOW_HU) -> Figure:
    """Draw CT, ground truth and result side by side, one row a case.

    Parameters
    ----------
    examples
        The rows, top to bottom.
    window_hu
        The values shown black and white.

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
    heights = []
    for example in examples:
        _check(example.volume_hu, example.spacing_mm, window_hu, example.truth, example.result)
        _, height, width = np.multiply(example.volume_hu.shape, example.spacing_mm)
        heights.append(height / width)
    figure = _figure(sum(heights) / 3 + 0.04 * len(heights))
    axes = figure.subplots(len(examples), 3, squeeze=False, height_ratios=heights)
    for number, (row, example) in enumerate(zip(axes, examples, strict=True)):
        index = largest_slice(example.truth) if example.index is None else example.index
        _check_index(index, 0, example.volume_hu.shape)
        for ax in row:
            _draw_ct(ax, example.volume_hu, index, 0, example.spacing_mm, window_hu)
        _draw_outlines(row[1], example.truth[index], "solid", fill=True)
        _draw_outlines(row[2], example.result[index], "solid", fill=True)
        if number == 0:
            _name_regions(row[1], [example.truth[index]])
        row[0].set_ylabel(example.title, fontsize=9)
        row[0].set_xlabel(f"slice {index}", fontsize=9)
        row[2].set_xlabel(example.scores, fontsize=9)
    for ax, title in zip(axes[0], ("CT", "ground truth", "result"), strict=True):
        ax.set_title(title, fontsize=11)
    return figure


def three_planes(
    volume_hu: np.ndarray,
    label: np.ndarray | None = None,
    *,
    spacing_mm: Sequence[float],
    position: tuple[int, int, int] | None = None,
    window_hu: tuple[float, float] = WINDOW_HU,
) -> Figure:
    """Draw the coronal, sagittal and axial slices through one voxel, all at one scale.

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
    window_hu
        The values shown black and white.

    Raises
    ------
    ValueError
        Shapes differ, or the spacing, the window or the position is impossible.
    """
    _check(volume_hu, spacing_mm, window_hu, label)
    voxel = _inside(volume_hu.shape, label) if position is None else position
    for axis, index in enumerate(voxel):
        _check_index(index, axis, volume_hu.shape)
    depth, height, width = np.multiply(volume_hu.shape, spacing_mm)
    figure = _figure((depth + height) / (width + height) + 0.06)
    grid = figure.add_gridspec(2, 2, height_ratios=(depth, height), width_ratios=(width, height))
    for axis, cell in ((1, grid[0, 0]), (2, grid[0, 1]), (0, grid[1, 0])):
        ax = figure.add_subplot(cell)
        _draw_ct(ax, volume_hu, voxel[axis], axis, spacing_mm, window_hu)
        if label is not None:
            _draw_outlines(ax, label.take(voxel[axis], axis), "solid")
        _draw_crosshair(ax, np.delete(voxel, axis), axis)
        ax.set_title(f"{_PLANES[axis]}, {'zyx'[axis]} = {voxel[axis]}", fontsize=10)
    ax = figure.add_subplot(grid[1, 1])
    ax.axis("off")
    _describe_voxel(ax, voxel, volume_hu, label)
    return figure


def three_plane_viewer(
    volume_hu: np.ndarray,
    label: np.ndarray | None = None,
    *,
    spacing_mm: Sequence[float],
    window_hu: tuple[float, float] = WINDOW_HU,
) -> ipywidgets.VBox:
    """Make `three_planes` move: a slider for z, y and x each.

    The picture is an image widget, so the viewer works with any matplotlib backend, and a saved
    notebook still shows the first position.

    Parameters
    ----------
    volume_hu, label, spacing_mm, window_hu
        As for `three_planes`.

    Returns
    -------
    ipywidgets.VBox
        Three `IntSlider` and the `Image`.

    Raises
    ------
    ValueError
        As for `three_planes`.
    """
    import ipywidgets

    _check(volume_hu, spacing_mm, window_hu, label)
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
        figure = three_planes(
            volume_hu, label, spacing_mm=spacing_mm, position=(z, y, x), window_hu=window_hu
        )
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=100)
        image.value = stream.getvalue()

    for slider in sliders:
        slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([*sliders, image])


def training_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw loss and learning rate by epoch.

    The validation loss is a strong line with a dot at its best epoch; the training loss is a
    thin one.

    Parameters
    ----------
    histories
        A name → the columns ``epoch``, ``loss``, ``val_loss``, ``learning_rate``, all of one
        length.

    Raises
    ------
    ValueError
        There is no history, or one lacks a column or has columns of different lengths.
    """
    if not histories:
        raise ValueError("training_curves needs at least one history")
    figure = _figure(0.75)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ends = []
    for number, (name, history) in enumerate(histories.items()):
        epoch, loss, val_loss, rate = _columns(name, history)
        color = _LINES[number % len(_LINES)]
        dash = ("-", "--", ":")[number // len(_LINES) % 3]
        upper.plot(epoch, loss, dash, color=color, linewidth=0.8, alpha=0.7)
        upper.plot(epoch, val_loss, dash, color=color, linewidth=1.8, label=name)
        best = np.nan_to_num(val_loss, nan=np.inf).argmin()
        upper.plot(epoch[best], val_loss[best], "o", color=color, markersize=5)
        lower.step(epoch, rate, where="mid", color=color, linewidth=1.5)
        ends.append((float(val_loss[-1]), name, color))
    _name_lines(upper, ends)
    upper.set_title(
        "thick: validation, dot: its best epoch; thin: training", fontsize=9, loc="left"
    )
    upper.set_ylabel("loss")
    lower.set(ylabel="learning rate", xlabel="epoch", yscale="log")
    lower.xaxis.get_major_locator().set_params(integer=True)
    for ax in (upper, lower):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def table_1_plot(rows: Sequence[Any]) -> Figure:
    """Draw measured DSCs beside the paper's, one line a system, whole and tumor.

    Parameters
    ----------
    rows
        Mappings or objects with ``title``, ``whole_mean``, ``whole_sd``, ``tumor_mean``,
        ``tumor_sd``, ``paper_whole_mean``, ``paper_tumor_mean`` and, where known,
        ``paper_whole_sd`` and ``paper_tumor_sd``; DSCs in [0, 1]. Numbers that are None or NaN
        are left out.

    Raises
    ------
    ValueError
        There are no rows, or one lacks a field.
    """
    if not rows:
        raise ValueError("table_1_plot needs at least one row")
    figure = _figure((1.1 + 0.34 * len(rows)) / _WIDTH_IN)
    axes = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(rows))
    for ax, region in zip(axes, ("whole", "tumor"), strict=True):
        for source, prefix, shift, marker in (
            ("measured", "", -0.14, "o"),
            ("paper", "paper_", 0.14, "D"),
        ):
            mean = [_number(row, f"{prefix}{region}_mean") for row in rows]
            sd = [_number(row, f"{prefix}{region}_sd", optional=bool(prefix)) for row in rows]
            ax.errorbar(
                mean, place + shift, xerr=sd, fmt=marker, color=PALETTE[source], label=source,
                markersize=5, elinewidth=1.2, markerfacecolor="white" if prefix else None,
            )  # fmt: skip
        ax.set_title(region, fontsize=11)
        ax.set_xlabel("DSC, mean ± SD over folds", fontsize=9)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_yticks(place, [str(_field(row, "title")) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _figure(height_over_width: float) -> Figure:
    import matplotlib.pyplot as plt

    height_in = _WIDTH_IN * float(np.clip(height_over_width, 0.25, 4.0))
    figure = plt.figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    plt.close(figure)
    return figure


def _draw_ct(
    ax: Axes,
    volume_hu: np.ndarray,
    index: int,
    axis: int,
    spacing_mm: Sequence[float],
    window_hu: tuple[float, float],
) -> None:
    image = volume_hu.take(index, axis).astype(np.float32)
    row_mm, column_mm = np.delete(np.asarray(spacing_mm, float), axis)
    low, high = window_hu
    ax.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=row_mm / column_mm)
    ax.set(xticks=[], yticks=[])
    ax.autoscale(False)  # outlines reach half a voxel beyond the image
    ax.spines[:].set_visible(False)


def _draw_outlines(ax: Axes, label: np.ndarray, style: Any, *, fill: bool = False) -> None:
    from matplotlib import patheffects

    for region, mask in (("whole", label > 0), ("tumor", label == 2)):
        if not mask.any():
            continue
        color = PALETTE[region]
        if fill:
            area = label == 1 if region == "whole" else mask  # the tints must not mix
            if area.any():
                ax.contourf(*_framed(area), levels=[0.5, 1.5], colors=[color], alpha=0.4)
        lines = ax.contour(*_framed(mask), levels=[0.5], colors=[color], linewidths=1.3)
        lines.set(linestyle=style, label=region)
        lines.set_path_effects([patheffects.withStroke(linewidth=2.4, foreground="black")])


def _framed(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # The frame of background closes outlines at the edge of the image.
    rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
    return columns, rows, np.pad(mask, 1).astype(np.float32)


def _name_regions(ax: Axes, labels: Sequence[np.ndarray]) -> None:
    for region, lowest in (("whole", 1), ("tumor", 2)):
        mask = np.any([label >= lowest for label in labels], axis=0)
        if mask.any():
            _name_region(ax, mask, region)


def _name_region(ax: Axes, mask: np.ndarray, region: str) -> None:
    # Whole is named above itself and tumor below, so that the two names never meet.
    above = region == "whole"
    rows, columns = np.nonzero(mask)
    at = rows.argmin() if above else rows.argmax()
    height, width = mask.shape
    free = rows[at] if above else height - 1 - rows[at]
    upward = above == (free > 0.1 * height)  # at the edge of the image the name goes inside
    text = ax.annotate(
        region, (np.clip(columns[at], 0.1 * width, 0.9 * width), rows[at]),
        (0, 6 if upward else -6), textcoords="offset points", ha="center",
        va="bottom" if upward else "top", color=PALETTE[region], fontsize=9, fontweight="bold",
    )  # fmt: skip
    _edge(text)


def _draw_style_key(ax: Axes) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="white", linestyle="solid", label="truth"),
        Line2D([], [], color="white", linestyle=_DASHED, label="predicted"),
    ]
    ax.legend(
        handles=handles, loc="lower left", fontsize=9, labelcolor="white",
        facecolor="black", edgecolor="none", framealpha=0.7, handlelength=2.5,
    )  # fmt: skip


def _draw_crosshair(ax: Axes, at: Sequence[int] | np.ndarray, axis: int) -> None:
    row, column = at
    line = {"color": "white", "linewidth": 0.8, "alpha": 0.8}
    ax.axhline(row, 0.09, 0.91, **line)  # the margin is left to the letters
    ax.axvline(column, 0.09, 0.91, **line)
    places = ((0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom"),
              (0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"))  # fmt: skip
    for letter, (x, y, ha, va) in zip(_LETTERS[axis], places, strict=True):
        text = ax.text(x, y, letter, transform=ax.transAxes, ha=ha, va=va, color="white")
        text.set_fontsize(10)
        _edge(text)


def _edge(text: Any) -> None:
    from matplotlib import patheffects

    text.set_path_effects([patheffects.withStroke(linewidth=1.6, foreground="black")])


def _describe_voxel(
    ax: Axes, voxel: Sequence[int], volume_hu: np.ndarray, label: np.ndarray | None
) -> None:
    z, y, x = voxel
    ax.text(0.08, 0.9, f"{volume_hu[z, y, x]:.0f} HU", fontsize=14)
    if label is not None:
        name = ("background", "kidney", "tumor")[int(label[z, y, x])]
        ax.text(0.08, 0.76, f"label {label[z, y, x]}: {name}", fontsize=10)
        for height, region in ((0.18, "whole"), (0.06, "tumor")):
            ax.plot([0.08, 0.22], [height + 0.025] * 2, color=PALETTE[region], linewidth=3)
            ax.text(0.27, height, region, fontsize=10)
    ax.set(xlim=(0, 1), ylim=(0, 1))


def _name_lines(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    # Names stand at the heights where their lines end, pushed apart to stay readable.
    ends = sorted(ends)
    gap = min(0.075, 1 / len(ends))
    low, high = ax.get_ylim()
    values = np.nan_to_num([value for value, _, _ in ends], nan=high)
    wanted = np.clip((values - low) / (high - low), 0, 1)
    heights = np.maximum.accumulate(wanted - gap * np.arange(len(ends)))
    heights += gap * np.arange(len(ends))
    heights -= max(0.0, heights[-1] - 1.0)
    for height, (_, name, color) in zip(heights, ends, strict=True):
        ax.text(
            1.01, height, name, transform=ax.transAxes, va="center", fontsize=9,
            color=color, fontweight="bold",
        )  # fmt: skip


def _inside(shape: Sequence[int], label: np.ndarray | None) -> tuple[int, int, int]:
    if label is None or not (label > 0).any():
        return shape[0] // 2, shape[1] // 2, shape[2] // 2
    z = largest_slice(label)
    voxels = np.argwhere(label[z] == label[z].max())
    y, x = voxels[len(voxels) // 2]
    return z, int(y), int(x)


def _columns(name: str, history: Mapping[str, Sequence[float]]) -> list[np.ndarray]:
    wanted = ("epoch", "loss", "val_loss", "learning_rate")
    missing = [column for column in wanted if column not in history]
    if missing:
        raise ValueError(f"the history of {name!r} lacks {', '.join(missing)}")
    columns = [np.asarray(history[column], float) for column in wanted]
    if {column.shape for column in columns} != {(len(columns[0]),)} or not len(columns[0]):
        raise ValueError(f"the history of {name!r} is empty or has columns of different lengths")
    return columns


def _field(row: Any, name: str) -> Any:
    if isinstance(row, Mapping) and name in row:
        return row[name]
    if not hasattr(row, name):
        raise ValueError(f"a row of Table 1 lacks the field {name!r}")
    return getattr(row, name)


def _number(row: Any, name: str, *, optional: bool = False) -> float:
    try:
        value = _field(row, name)
    except ValueError:
        if not optional:
            raise
        value = None
    return float("nan") if value is None else float(value)


def _check(
    volume_hu: np.ndarray,
    spacing_mm: Sequence[float],
    window_hu: tuple[float, float],
    *labels: np.ndarray | None,
) -> None:
    if volume_hu.ndim != 3 or not volume_hu.size:
        raise ValueError(f"a CT has three axes (z, y, x), not the shape {volume_hu.shape}")
    for label in labels:
        if label is not None and label.shape != volume_hu.shape:
            raise ValueError(f"CT {volume_hu.shape} and label map {label.shape} differ in shape")
    if len(spacing_mm) != 3 or not all(np.isfinite(mm) and mm > 0 for mm in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers (z, y, x), not {spacing_mm}")
    if not window_hu[0] < window_hu[1]:
        raise ValueError(f"window_hu must be (black, white) with black < white, not {window_hu}")


def _check_index(index: int, axis: int, shape: Sequence[int]) -> None:
    if not 0 <= index < shape[axis]:
        raise ValueError(f"{'zyx'[axis]} = {index} is outside the CT: 0 to {shape[axis] - 1}")
