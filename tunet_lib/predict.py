"""One CT, from its voxels to its label map: the whole method in a row.

Chapters 11 (``notebooks/11_inference.ipynb``) and 15 (``notebooks/15_beyond.ipynb``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from tunet_lib.config import ENSEMBLE, LOCALIZERS, Windows
from tunet_lib.ensemble import mean_maps
from tunet_lib.files import DataError
from tunet_lib.localization import lnet_mask
from tunet_lib.model_folder import ModelFolder, check_alike, models_below
from tunet_lib.placement import Placement
from tunet_lib.plausible import check_is_scan, check_tumor
from tunet_lib.postprocess import is_tumor_by_rule, postprocess
from tunet_lib.preprocess import prepare_scan
from tunet_lib.scans import ScanFile

if TYPE_CHECKING:  # loading TensorFlow takes seconds, and much can be said without it
    from tunet_lib.model import Model

COURSE_WEIGHTS = Path(__file__).parent / "course_weights"  # of the study, for its phantoms
WIDE_WEIGHTS = Path(__file__).parent / "wide_weights"  # for CTs from anywhere


def predict_scan(
    scan: ScanFile,
    models: str | Path | Networks = WIDE_WEIGHTS,
    *,
    windows: Windows = "mask",
    tumor_rule: bool = True,
    batch_size: int = 4,
    on_part: Callable[[float], Any] | None = None,
) -> np.ndarray:
    """Segment one CT: L-Net localizes, every TuNet votes, Algorithm 1 decides.

    Parameters
    ----------
    scan
        The CT, in memory or on disk; larger than the grid's field of view is fine, nothing is
        cropped.
    models
        A folder of trained networks, searched in depth: one of the two that come with the
        library, both trained on synthetic CTs, `WIDE_WEIGHTS` on such of any look or
        `COURSE_WEIGHTS` on the study's; or ``models/`` of a run. For many CTs make one
        `Networks` of it, which builds them once.
    windows
        Of the TuNets: ``"all"`` of them; those that hold something of L-Net's ``"mask"``; or
        fewer, over the ``"box"`` around it.
    tumor_rule
        Whether to call the whole region tumor where no tumor was found, as Algorithm 1 does in
        line 14, if the networks' configuration has that: right for KiTS19, where every patient
        has one. `WIDE_WEIGHTS` have it not.
    batch_size
        Windows at a time.
    on_part
        Called again and again with the share of one model's work done since.

    Returns
    -------
    numpy.ndarray
        uint8 label map (z, y, x), the shape of the scan: 0 background, 1 kidney, 2 tumor.

    Raises
    ------
    DataError
        `models` holds no TuNet, or networks of different configurations; the scan cannot be
        brought to their grid (`preprocess.prepare_scan`), or is none; or this process was forked
        from one that had loaded TensorFlow.

    Warns
    -----
    DataWarning
        The tumor is there by the rule alone, or the networks are not sure of it.
    UserWarning
        L-Net found no kidney, so that its mask is not applied.

    Notes
    -----
    What lies outside L-Net's mask is removed in the end, so windows outside of it need not be
    predicted, and the maps are 0 there. With ``"mask"`` the label map is the same as with
    ``"all"``, unless the maps would have reached the low thresholds out there, and Algorithm 1
    would have acted on it within: by a voxel that ends the search for an unsure region or for
    any tumor at all, by voxels that make a tumor large, or by a bridge between two parts of a
    region. With ``"box"`` it differs a little nearly always, for fewer windows see each voxel
    (chapter 11 measures it).

    Source: Vu et al. 2019, Eq. 4, Algorithm 1 and Fig. 4.
    """
    if windows not in (known := get_args(Windows)):
        raise DataError(f"windows is {windows!r}, must be one of {', '.join(known)}")
    check_is_scan(scan)
    networks = models if isinstance(models, Networks) else Networks(models)
    localizers, voters = networks.localizers, networks.voters
    config = voters[0].config()
    if not tumor_rule:
        config = replace(config, tumor_is_whole_if_none=False)
    placement = Placement(scan, config)
    medians = {folder.variant().median for folder in (*localizers, *voters)}
    volumes = prepare_scan(scan, config, medians, placement=placement)
    mask = None
    if localizers:
        probs = (model.predict(volumes, on_part=on_part) for model in networks.in_turn(localizers))
        mask = lnet_mask(mean_maps(probs)[..., 0], config)
    # An empty mask is not applied either.
    where = mask if mask is not None and windows != "all" and mask.any() else None
    options: Any = {"tight": windows == "box", "batch_size": batch_size, "on_part": on_part}
    maps = (model.predict(volumes, where=where, **options) for model in networks.in_turn(voters))
    whole_and_tumor = mean_maps(maps)
    if where is not None:
        whole_and_tumor[~where] = 0  # there the mean would be of fewer windows
    label = postprocess(whole_and_tumor[..., 0], whole_and_tumor[..., 1], config, lnet_mask=mask)
    by_rule = is_tumor_by_rule(label, whole_and_tumor[..., 1], config)
    check_tumor(label, whole_and_tumor[..., 1], scan.file.path, by_rule=by_rule)
    return placement.label_from_grid(label)


class Networks:
    """The trained networks below a folder; each architecture is built once, for all CTs.

    Parameters
    ----------
    folder
        Searched in depth.

    Attributes
    ----------
    localizers, voters
        As `find_models` gives them.

    Raises
    ------
    DataError
        There is no TuNet, or their configurations differ.
    """

    def __init__(self, folder: str | Path) -> None:
        self.localizers, self.voters = find_models(folder)
        self._built: dict[tuple[str, bool], Any] = {}

    def __len__(self) -> int:
        return len(self.localizers) + len(self.voters)

    def in_turn(self, folders: Iterable[ModelFolder]) -> Iterator[Model]:
        """Load some of them, as `in_turn` does."""
        return in_turn(folders, self._built)


def find_models(folder: str | Path) -> tuple[list[ModelFolder], list[ModelFolder]]:
    """Find the trained L-Nets and TuNets below a folder.

    Returns
    -------
    localizers, voters
        L-Nets, of which there may be none, and TuNets.

    Raises
    ------
    DataError
        There is no TuNet, or their configurations differ.
    """
    found = models_below(folder)
    localizers = [model for model in found if model.variant().name in LOCALIZERS]
    voters = [model for model in found if model.variant().name in ENSEMBLE]
    if not voters:
        raise DataError(f"{folder}: holds no trained TuNet; name the folder models/ of a run")
    check_alike([*voters, *localizers])
    return localizers, voters


def in_turn(
    folders: Iterable[ModelFolder], networks: dict[tuple[str, bool], Any] | None = None
) -> Iterator[Model]:
    """Load networks one after another, and build only one of each architecture.

    A model is good until the next one is asked for, which may take over its network.

    Parameters
    ----------
    folders
        Networks of one configuration.
    networks
        What an earlier call has built, of the same configuration; what this one builds is added.
    """
    from tunet_lib.model import Model

    networks = {} if networks is None else networks
    for folder in folders:
        kind = folder.variant().network, folder.variant().squeeze_excite
        model = Model.load(folder.path, network=networks.get(kind))
        networks[kind] = model.network
        yield model
