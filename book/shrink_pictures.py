"""Halve the stored pictures of chapters: ``python book/shrink_pictures.py NOTEBOOK…`` does it.

A stored figure needs no more than the 256 colors of a palette; one that would look different is
left as it is.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLORS = 256
LARGEST_MEAN_ERROR = 0.5  # of 255, of the worst channel: nobody sees it


def shrunk(png: bytes) -> bytes:
    """Give the same picture with a palette, or what came in where that is no gain."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P" or (picture.mode == "RGBA" and picture.getextrema()[3][0] < 255):
        return png
    rgb = picture.convert("RGB")
    palette = rgb.quantize(COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    error = np.abs(np.asarray(palette.convert("RGB"), int) - np.asarray(rgb, int))
    small = io.BytesIO()
    palette.save(small, "png", optimize=True, dpi=picture.info.get("dpi"))
    alike = error.max(axis=-1).mean() <= LARGEST_MEAN_ERROR
    return small.getvalue() if alike and len(small.getvalue()) < len(png) else png


def shrink(notebook: dict[str, Any]) -> bool:
    """Shrink each PNG among the outputs; tell whether any changed."""
    changed = False
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            stored = "".join(output.get("data", {}).get("image/png", ""))
            small = base64.b64encode(shrunk(base64.b64decode(stored))).decode() if stored else ""
            if small != stored.replace("\n", ""):
                output["data"]["image/png"] = small
                changed = True
    return changed


def main() -> None:
    """Shrink what is named, in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", nargs="+", type=Path)
    for path in parser.parse_args().notebook:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if shrink(notebook):
            text = json.dumps(notebook, indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
