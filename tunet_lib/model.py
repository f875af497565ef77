"""A trained network as one object: weights, variant and configuration together.

Chapter 11 (``notebooks/11_inference.ipynb``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunet_lib.config import Config, Variant
from tunet_lib.files import DataError
from tunet_lib.localization import predict_lnet
from tunet_lib.model_folder import ModelFolder
from tunet_lib.networks import build
from tunet_lib.plausible import check_shape
from tunet_lib.quiet import computing, keras
from tunet_lib.weights import read_weights, write_weights
from tunet_lib.windows import OnPart, box_around, predict_windows, starts_at, window_starts


@dataclass(frozen=True)
class Model:
    """A network with all that it needs to predict.

    Attributes
    ----------
    network
        The Keras model: patches (batch, z, y, x, 1) to probabilities, or slices without z.
    variant
        Which network it is, and whether it sees the median-filtered volume.
    config
        What it was trained with.
    """

    network: keras.Model
    variant: Variant
    config: Config

    @classmethod
    def untrained(cls, variant: Variant, config: Config) -> Model:
        """Build a network, its weights drawn from Keras' global seed."""
        return cls(build(variant, config), variant, config)

    @classmethod
    def load(cls, folder: str | Path, *, network: keras.Model | None = None) -> Model:
        """Read a network that `save` wrote.

        Parameters
        ----------
        folder
            Holds the weights, the variant, and the configuration of their training.
        network
            A network of the same kind and configuration to take the weights, in place of a
            new one: building one takes a second, and so does its first prediction.

        Raises
        ------
        DataError
            A file is missing or damaged, or the weights are of another network.
        """
        files = ModelFolder(Path(folder))
        variant, config = files.variant(), files.config()
        if network is None:
            # Predictions are float32 wherever they run: only training gains from fewer bits.
            network = build(variant, dataclasses.replace(config, precision="float32"))
        read_weights(files.weights, network)
        return cls(network, variant, config)

    def save(self, folder: str | Path, *, before: Callable[[], object] | None = None) -> None:
        """Write weights, configuration and variant into `folder`, each atomically.

        The weights come last: a folder that holds them is complete. `before` is that of
        `atomic_path`, for the weights.
        """
        files = ModelFolder(Path(folder))
        files.describe(self.variant, self.config)
        write_weights(files.weights, self.network, before=before)

    def predict(
        self,
        volumes: Mapping[bool, np.ndarray],
        *,
        where: np.ndarray | None = None,
        tight: bool = False,
        batch_size: int = 1,
        on_part: OnPart | None = None,
    ) -> np.ndarray:
        """Predict a whole grid volume.

        Parameters
        ----------
        volumes
            Median filtered or not → normalized grid volume (z, y, x), as `prepare_scan` gives
            them; the network takes the one that it was trained on.
        where
            bool (z, y, x): windows that hold none of these voxels are left out. At these voxels
            the result is the same as without; elsewhere it may be of fewer windows, or 0. L-Net
            always predicts everywhere.
        tight
            Lay the windows not over the volume but over the box around `where`, wider by
            `windows.BOX_MARGIN_MM` on each side. They are far fewer, and so are the answers of
            which each voxel gets the mean: it differs from the one without. Outside of the box
            it is 0.
        batch_size
            Windows, or axial slices of the 2D baseline, at a time: more is faster and takes
            more memory.
        on_part
            Called again and again with the share of the work done since.

        Returns
        -------
        numpy.ndarray
            (z, y, x, 2) float32, whole and tumor probabilities; from L-Net (z, y, x, 1), the
            whole probability, upsampled from its own downsampled volume to the grid.

        Raises
        ------
        DataError
            The volume that the network needs is not there. Of any but L-Net, which takes the
            volume as it is: `where` holds no voxel, or has another shape, or `batch_size` is
            below 1.

        Notes
        -----
        Source: Vu et al. 2019, 3.3.
        """
        if self.variant.median not in volumes:
            raise DataError(f"{self.variant.title} needs volumes[{self.variant.median}]")
        volume = volumes[self.variant.median]
        if self.variant.sees == "volume":
            return predict_lnet(self.predict_batch, volume, self.config, on_part=on_part)
        if where is not None:
            check_shape(where, volume.shape)
        window = self.variant.patch_shape(self.config)

        def predicted(volume: np.ndarray, where: np.ndarray | None) -> np.ndarray:
            starts = window_starts(volume.shape, window, self.variant.patch_stride(self.config))
            if where is not None:
                starts = starts_at(where, starts, window)
            return predict_windows(
                self.predict_batch,
                volume,
                starts,
                window=window,
                batch_size=batch_size,
                on_part=on_part,
            )

        if where is None or not tight:
            return predicted(volume, where)
        box = box_around(where, window, self.config.grid_spacing_mm)
        maps = np.zeros((*volume.shape, len(self.variant.regions)), np.float32)
        maps[box] = predicted(volume[box], where[box])
        return maps

    @computing()
    def predict_batch(self, batch: np.ndarray) -> np.ndarray:
        """Predict patches (batch, z, y, x, 1) float32; slices are patches of one z."""
        if self.variant.sees == "slice":
            return self.network.predict_on_batch(batch[:, 0])[:, None]
        return self.network.predict_on_batch(batch)
