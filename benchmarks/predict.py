"""One prepared case through L-Net and TuNet: all 25 windows, those at L-Net's mask, its box."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.cases import full_size_case
from benchmarks.harness import Measured, in_turns, ratios
from tunet_lib.config import VARIANTS, Config
from tunet_lib.kits19 import require_image, require_label
from tunet_lib.placement import Placement
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import load_label, open_scan

CONFIG = Config.preset("paper", filters=8)


@functools.cache
def prepared() -> tuple[np.ndarray, np.ndarray]:
    """Give a prepared volume and the mask that a good L-Net would find in it.

    The networks are untrained, for time does not depend on the weights; where L-Net finds
    kidneys does, so the true region, dilated by two voxels, stands for its mask.
    """
    case = full_size_case()
    scan = open_scan(require_image(case))
    label = Placement(scan, CONFIG).label_to_grid(load_label(require_label(case)))
    mask = ndimage.binary_dilation(label > 0, iterations=2)
    return prepare_scan(scan, CONFIG, [False])[False], mask


def measure() -> list[Measured]:
    """Measure this row."""
    import torch
    from monai.inferers import sliding_window_inference

    from benchmarks import torch_net
    from tunet_lib.model import Model
    from tunet_lib.windows import block_mean

    volume, mask = prepared()
    tunet, lnet = (Model.untrained(VARIANTS[name], CONFIG) for name in ("tunet", "lnet"))
    peers: list[Any] = [torch_net.TuNet(CONFIG), torch_net.LNet(CONFIG)]
    for model, peer in zip((tunet, lnet), peers, strict=True):
        torch_net.copy_weights(model.network, peer)
    layout = {"memory_format": torch.channels_last_3d}
    peer_tunet, peer_lnet = (peer.eval().to(**layout) for peer in peers)

    def ours(where: np.ndarray | None, tight: bool = False) -> np.ndarray:
        lnet.predict({False: volume})
        return tunet.predict({False: volume}, where=where, tight=tight)

    def theirs() -> np.ndarray:
        with torch.inference_mode():
            coarse = torch.from_numpy(block_mean(volume, CONFIG.lnet_downsampling))[None, None]
            prob = peer_lnet(coarse.contiguous(**layout))
            torch.nn.functional.interpolate(prob, volume.shape, mode="trilinear")
            maps = sliding_window_inference(
                torch.from_numpy(volume)[None, None],
                CONFIG.patch_shape,
                1,
                lambda x: peer_tunet(x.contiguous(**layout)),
                overlap=0.75,
                mode="constant",
            )
        return maps[0].permute(1, 2, 3, 0).numpy()

    def agree(one: np.ndarray, other: np.ndarray, where: Any, exact: bool) -> str:
        difference = np.abs(one - other)[where]
        mean, most = float(difference.mean()), float(difference.max())
        if exact:  # but for float32, whose sums depend on their order: most in a patch of air
            assert mean < 2e-3, mean
            assert most < 0.05, most
        return f"maps differ by {mean:.1e} on average, {most:.1e} at most"

    everyone = {
        "tunet_lib": lambda: ours(None),
        "tunet_lib, at the mask": lambda: ours(mask),
        "tunet_lib, over its box": lambda: ours(mask, tight=True),
        "PyTorch + MONAI": theirs,
    }
    maps, times_s = in_turns(everyone, rounds=1)  # one takes minutes
    peer = maps["PyTorch + MONAI"]
    lines = []
    for name, windows, goal, where, exact in (
        ("tunet_lib", "all 25 windows", 1.5, ..., True),
        ("tunet_lib, at the mask", "windows at its mask", 4.0, mask, True),
        ("tunet_lib, over its box", "windows over its box", 4.0, mask, False),
    ):
        said = {"PyTorch + MONAI": agree(maps[name], peer, where, exact)}
        work = f"L-Net and TuNet, 8 filters, {windows}"
        lines += ratios(work, times_s, name, {"PyTorch + MONAI": goal}, said)
    return [replace(line, by=line.by.partition(",")[0]) for line in lines]
