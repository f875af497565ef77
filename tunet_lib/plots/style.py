"""What all pictures share: colors that every reader can tell apart, and one width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # takes long to load, so the functions that need it import it
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect

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
WIDTH_IN = 6.4


def new_figure(height_over_width: float) -> Figure:
    """Make an empty figure, 6.4 inches wide, that pyplot has already forgotten.

    Parameters
    ----------
    height_over_width
        Its shape; kept between 0.25 and 4.
    """
    import matplotlib.pyplot as plt

    height_in = WIDTH_IN * float(np.clip(height_over_width, 0.25, 4.0))
    figure = plt.figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    plt.close(figure)
    return figure


def black_edge(width: float) -> list[AbstractPathEffect]:
    """Make a line or a text stand out from any gray: what to give as its `path_effects`.

    Parameters
    ----------
    width
        Of the black line below, in points.
    """
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground="black")]
