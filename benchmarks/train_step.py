"""One training step of TuNet on a patch of 128x128x128, with 8 and 16 filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Measured, compare
from tunet_lib.config import VARIANTS, Config

SIZE = 128


def patch(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Give an image and its masks, (1, z, y, x, channels) float32."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, size, size, size, 1)).astype(np.float32)
    return image, (rng.random((1, size, size, size, 2)) > 0.9).astype(np.float32)


def steps(filters: int, size: int = SIZE) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Give one step of ours and one of PyTorch's, from the same weights."""
    import torch

    from benchmarks import torch_net
    from tunet_lib.training import compiled

    config = Config.preset("paper", filters=filters)
    image, truth = patch(size)
    model = compiled(VARIANTS["tunet"], config)
    peer: Any = torch_net.TuNet(config)
    torch_net.copy_weights(model, peer)
    peer = peer.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.Adam(peer.parameters(), lr=config.learning_rate)
    layout = {"memory_format": torch.channels_last_3d}
    x = torch.from_numpy(image).permute(0, 4, 1, 2, 3).contiguous(**layout)
    y = torch.from_numpy(truth).permute(0, 4, 1, 2, 3).contiguous(**layout)

    def ours() -> float:
        return float(model.train_on_batch(image, truth))

    def theirs() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch_net.dice_loss(y, peer(x))
        kernels = (p for p in peer.parameters() if p.ndim == 5)
        loss = loss + config.l2 * sum((kernel**2).sum() for kernel in kernels)
        loss.backward()
        optimizer.step()
        return float(loss)

    return ours, theirs


def agree(ours: float, theirs: float) -> str:
    """Compare the losses of the first step."""
    assert abs(ours - theirs) < 1e-3, (ours, theirs)
    return f"loss differs by {abs(ours - theirs):.1e}"


def measure() -> list[Measured]:
    """Measure this row."""
    lines = []
    for filters in (8, 16):
        ours, theirs = steps(filters)
        work = f"training step 128x128x128, {filters} filters"
        lines += compare(work, ours, {"PyTorch": (theirs, 1.2)}, agree, rounds=3)
        del ours, theirs
    return lines
