"""Vector drawings of the method, made from a `Config` so that no number in them can be wrong.

Chapters 05 and 07 (``notebooks/05_unet.ipynb``, ``notebooks/07_cascade.ipynb``).

A `Drawing` shows itself in a notebook and in the built book. Its text is text, and its lines have
the color of the text around it, in light and in dark.
"""

from tunet_lib.drawings.chain import HERE, ICONS, STEPS, Step, draw_chain
from tunet_lib.drawings.nets import Block, draw_tunet, draw_u_net, u_net_blocks
from tunet_lib.drawings.svg import Drawing

__all__ = [
    "HERE",
    "ICONS",
    "STEPS",
    "Block",
    "Drawing",
    "Step",
    "draw_chain",
    "draw_tunet",
    "draw_u_net",
    "u_net_blocks",
]
