"""Numbers as charts: the curves of a training, and Table 1."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunet_lib.plots.style import PALETTE, WIDTH_IN, new_figure

if TYPE_CHECKING:  # takes long to load
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = tuple(PALETTE[name] for name in ("measured", "tumor", "truth", "predicted", "whole"))


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
        There is no history, or one has no epoch, or columns of different lengths.
    KeyError
        A history lacks a column.
    """
    if not histories or not all(len(each["epoch"]) for each in histories.values()):
        raise ValueError("training_curves needs at least one history, and an epoch of each")
    figure = new_figure(0.75)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ends = []
    # Lines that lie on one another would have the last one's color.
    all_share_rates = len({(*each["learning_rate"],) for each in histories.values()}) == 1
    gray = "0.4" if all_share_rates and len(histories) > 1 else None
    looks = itertools.product(("-", "--", ":", "-."), _LINES)  # other strokes, once colors end
    for (stroke, color), (name, history) in zip(
        itertools.cycle(looks), histories.items(), strict=False
    ):
        epoch, loss, val_loss, rate = (
            np.asarray(history[column], float)
            for column in ("epoch", "loss", "val_loss", "learning_rate")
        )
        look: dict[str, Any] = {"color": color, "linestyle": stroke}
        look["marker"] = "." if len(epoch) == 1 else None  # a line of one point is not to be seen
        upper.plot(epoch, loss, linewidth=0.8, alpha=0.7, **look)
        upper.plot(epoch, val_loss, linewidth=1.8, label=name, **look)
        best = np.nan_to_num(val_loss, nan=np.inf).argmin()
        upper.plot(epoch[best], val_loss[best], "o", color=color, markersize=5)
        lower.step(epoch, rate, where="mid", linewidth=1.5, **look | {"color": gray or color})
        ends.append((float(val_loss[-1]), name, color))
    _name_lines(upper, ends)
    upper.set_title(
        "thick: validation, dot: its best epoch; thin: training", fontsize=9, loc="left"
    )
    upper.set_ylabel("loss")
    lower.set(ylabel="learning rate", xlabel="epoch", yscale="log")
    # There is room for few labels, and often no power of ten between the two that matter.
    rates = np.unique([float(r) for each in histories.values() for r in each["learning_rate"]])
    rates = rates[rates > 0]
    ticks = np.unique([*rates[:1], *rates[-1:]])
    lower.set_yticks(ticks, [f"{rate:.2g}" for rate in ticks])
    lower.yaxis.set_minor_formatter("")
    lower.xaxis.get_major_locator().set_params(integer=True)
    for ax in (upper, lower):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def table_1_plot(rows: Sequence[Any]) -> Figure:
    """Draw measured DSCs beside the paper's, one line a system, whole and tumor.

    Parameters
    ----------
    rows
        What `table.table_1` gives: with a `title`, and `measured` and `paper` from region to
        mean and SD, DSCs in [0, 1]. Numbers that are NaN are left out.

    Raises
    ------
    ValueError
        There are no rows.
    """
    if not rows:
        raise ValueError("table_1_plot needs at least one row")
    figure = new_figure((1.1 + 0.34 * len(rows)) / WIDTH_IN)
    axes = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(rows))
    for ax, region in zip(axes, ("whole", "tumor"), strict=True):
        for source, shift, marker, inside in (
            ("measured", -0.14, "o", None),
            ("paper", 0.14, "D", "white"),
        ):
            mean, sd = np.array([getattr(row, source)[region] for row in rows], float).T
            ax.errorbar(
                mean, place + shift, xerr=sd, fmt=marker, color=PALETTE[source], label=source,
                markersize=5, elinewidth=1.2, markerfacecolor=inside,
            )  # fmt: skip
        ax.set_title(region, fontsize=11)
        ax.set_xlabel("DSC, mean ± SD over folds", fontsize=9)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(place, [row.title for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _name_lines(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    # Names stand about where their lines end, pushed apart to stay readable.
    ends = sorted(ends)
    gap = min(0.075, 1 / len(ends))
    low, high = ax.get_ylim()
    values = np.nan_to_num([value for value, _, _ in ends], nan=high)
    wanted = np.clip((values - low) / (high - low), 0, 1)
    heights = np.maximum.accumulate(wanted - gap * np.arange(len(ends)))
    heights += gap * np.arange(len(ends))
    heights -= np.mean(heights - wanted)
    heights -= min(0.0, heights[0]) + max(0.0, heights[-1] - 1.0)
    for height, (_, name, color) in zip(heights, ends, strict=True):
        ax.text(
            1.01, height, name, transform=ax.transAxes, va="center", fontsize=9,
            color=color, fontweight="bold",
        )  # fmt: skip
