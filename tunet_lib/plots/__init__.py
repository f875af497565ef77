"""Arrays in, figures out: CT slices with outlines, three planes, curves, and Table 1 as a plot.

All chapters draw with these names. Every function but the viewer gives a closed
`matplotlib.figure.Figure`: pyplot has forgotten it, so a notebook shows it once, as the value of
the cell, and it can still be saved or changed. Volumes are (z, y, x) in IPL orientation, so
`imshow` shows them as radiologists do: anterior or superior at the top, the patient's right at
the left of the image.
"""

from tunet_lib.plots.charts import table_1_plot, training_curves
from tunet_lib.plots.planes import three_plane_viewer, three_planes
from tunet_lib.plots.slices import (
    WINDOW_HU,
    Example,
    body,
    figure_5,
    largest_slice,
    show_outlines,
    show_slice,
)
from tunet_lib.plots.style import PALETTE

__all__ = [
    "PALETTE",
    "WINDOW_HU",
    "Example",
    "body",
    "figure_5",
    "largest_slice",
    "show_outlines",
    "show_slice",
    "table_1_plot",
    "three_plane_viewer",
    "three_planes",
    "training_curves",
]
