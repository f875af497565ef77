"""TuNet and L-Net in PyTorch, layer for layer as in `tunet_lib.networks`."""

from __future__ import annotations

import torch
from torch import nn

from tunet_lib.config import Config


class UNet(nn.Module):
    """One encoder and decoder; `injected` joins each level below the first."""

    def __init__(self, config: Config, inputs: int, outputs: int, inject: bool) -> None:
        super().__init__()
        self.levels, self.inject = config.levels, inject
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = inputs
        for level in range(config.levels):
            first, second = config.filters * 2**level, 2 * config.filters * 2**level
            channels += int(inject and level > 0)
            self.down.append(
                nn.Sequential(*_block(config, channels, first), *_block(config, first, second))
            )
            channels = second
        for level in reversed(range(config.levels - 1)):
            filters = 2 * config.filters * 2**level
            self.up.append(
                nn.Sequential(
                    *_block(config, channels + filters, filters), *_block(config, filters, filters)
                )
            )
            channels = filters
        self.head = nn.Conv3d(channels, outputs, 1)

    def forward(self, x: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Give probabilities."""
        skips = []
        for level, block in enumerate(self.down):
            if level:
                x = nn.functional.max_pool3d(x, 2)
                if self.inject:
                    image = nn.functional.max_pool3d(image, 2)
                    x = torch.cat([x, image], 1)
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, skips.pop()], 1))
        return torch.sigmoid(self.head(x).float())


class TuNet(nn.Module):
    """W-Net, and T-Net on its map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.w_net = UNet(config, 1, 1, inject=True)
        self.t_net = UNet(config, 2, 1, inject=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give whole and tumor probabilities, (batch, 2, z, y, x)."""
        whole = self.w_net(image, image)
        tumor = self.t_net(torch.cat([image, whole.to(image.dtype)], 1), image)
        return torch.cat([whole, tumor], 1)


class LNet(nn.Module):
    """The localization network."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = UNet(config, 1, 1, inject=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give the whole probability."""
        return self.net(image, image)


def dice_loss(truth: torch.Tensor, prob: torch.Tensor) -> torch.Tensor:
    """Eq. 2 for each sample, added over channels."""
    axes = (2, 3, 4)
    overlap, total = (truth * prob).sum(axes), truth.sum(axes) + prob.sum(axes)
    return (-2 * overlap / (total + 1e-5)).sum(1).mean()


def copy_weights(ours: object, theirs: nn.Module) -> None:
    """Give a PyTorch network the weights of a Keras one, in the order of their layers."""
    arrays = ours.get_weights()  # type: ignore[attr-defined]
    parameters = list(theirs.parameters())
    assert len(arrays) == len(parameters), (len(arrays), len(parameters))
    with torch.no_grad():
        for array, parameter in zip(arrays, parameters, strict=True):
            value = torch.from_numpy(array)
            if value.ndim == 5:
                value = value.permute(4, 3, 0, 1, 2)
            assert value.shape == parameter.shape
            parameter.copy_(value)


def _block(config: Config, inputs: int, outputs: int) -> list[nn.Module]:
    norm = nn.GroupNorm(config.norm_groups, outputs, eps=1e-3)
    return [nn.Conv3d(inputs, outputs, 3, padding=1), norm, nn.ReLU(inplace=True)]
