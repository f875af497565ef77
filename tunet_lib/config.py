"""Every number of the method, once, with the presets `paper` and `course`.

Axis order is (z, y, x) everywhere; the paper writes (x, y, z). A comment names the
paper's section, or says "open" where the paper is silent and a reading was chosen.

Chapter 00 (``notebooks/00_quickstart.ipynb``) shows them; the paper map (``book/paper_map.md``)
leads from each number to its chapter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tunet_lib.bounds import Within, check_fields, check_names
from tunet_lib.files import DataError, load_json, save_json

Preset = Literal["paper", "course"]
Precision = Literal["float32", "float16", "bfloat16"]
Windows = Literal["all", "mask", "box"]

Count = Annotated[int, Within(ge=1)]
ZeroToOne = Annotated[float, Within(ge=0, le=1)]
Threshold = Annotated[float, Within(gt=0, le=1)]  # every probability reaches 0
Shape = Annotated[tuple[int, int, int], Within(ge=1)]
Mm = Annotated[tuple[float, float, float], Within(gt=0, le=10_000)]
CT_HU = Within(ge=-32768, le=32767)  # what a CT file's 16 bits hold


@dataclass(frozen=True)
class Config:
    """Every number of Vu et al. 2019; the defaults are the preset `paper`.

    Raises
    ------
    DataError
        A value is of a wrong type or outside its range, or two contradict each other.
    """

    # Preprocessing

    #: Voxel size (z, y, x) to which every CT is brought first (3.4; open).
    resample_spacing_mm: Mm = (2.5, 1.0, 1.0)
    #: Size (z, y, x) of the grid; the paper's holds the largest training case (3.4).
    grid_fov_mm: Mm = (755.0, 533.0, 533.0)
    #: Voxels (z, y, x) of the grid; a multiple of `lnet_shape` (3.4).
    grid_shape: Shape = (128, 256, 256)
    #: Where the grid reaches beyond the CT (open; air).
    pad_hu: Annotated[float, CT_HU] = -1000.0
    #: Voxels along an edge of the median filter (3.2).
    median_size: Annotated[int, Within(odd=True, ge=1)] = 3
    #: Window (lowest, highest) to which HU are cut (open; the paper names none).
    clip_hu: Annotated[tuple[float, float], CT_HU] | None = None

    # Networks

    #: Voxels (z, y, x) of the volume that L-Net sees; a multiple of 2^(levels - 1) (2.1).
    lnet_shape: Shape = (64, 128, 128)
    #: Resolutions of a U-Net, each half of the one above (2.2; open).
    levels: Annotated[int, Within(ge=1, le=10)] = 4
    #: Level d, from 0, has 16 * 2^d and 32 * 2^d filters for 16 (2.2; open).
    filters: Count = 16
    #: Groups of channels that are normalized together; a divisor of `filters` (open).
    norm_groups: Count = 8
    #: Channels for each hidden unit of squeeze-and-excite (Hu et al. 2018).
    se_ratio: Count = 16
    #: Probability that an untrained network begins with everywhere (open; Lin et al. 2017).
    first_prob: Annotated[float, Within(gt=0, lt=1)] = 0.5

    # Patches and augmentation

    #: Voxels (z, y, x) of a patch; a multiple of 2^(levels - 1), at most the grid (3.3).
    patch_shape: Shape = (128, 128, 128)
    #: Voxels (z, y, x) from one window to the next; at most the patch (3.3).
    patch_stride: Shape = (32, 32, 32)
    #: Where the patches of an epoch lie, in all windows or at random (3.3).
    patch_sampling: Literal["windows", "random"] = "windows"
    #: Random patches of a case in one epoch (open; the paper's windows are 25).
    patches_per_case: Count = 25
    #: Share of random patches with kidney or tumor, of cases with any; at most 1 - tumor_fraction.
    foreground_fraction: ZeroToOne = 0.0
    #: Share of random patches that hold a tumor voxel, of cases that have one.
    tumor_fraction: ZeroToOne = 0.0
    #: Largest angle of the random rotation in plane, either way (3.4).
    rotation_deg: Annotated[float, Within(ge=0, le=180)] = 1.0
    #: Random zoom in plane, by a factor of 1 - zoom to 1 + zoom (open).
    zoom: Annotated[float, Within(ge=0, le=0.5)] = 0.0
    #: Mirror left and right in half of the patches (open).
    mirror: bool = False
    #: Random factor on the intensities, 1 - gain to 1 + gain (open).
    gain: Annotated[float, Within(ge=0, lt=1)] = 0.0
    #: Random offset of the intensities, up to so many SD either way (open).
    shift: Annotated[float, Within(ge=0, le=10)] = 0.0

    # Loss and training

    #: What one Dice sum runs over (Eq. 2; open).
    dice_over: Literal["sample", "batch"] = "sample"
    #: Added below the line of Dice, so that an empty region divides nothing by zero (open).
    dice_epsilon: Annotated[float, Within(gt=0, le=1)] = 1e-5
    #: Adam's step size at the start (3.2).
    learning_rate: Annotated[float, Within(gt=0, le=1)] = 1e-4
    #: Epochs over which it rises to that, in equal steps (open).
    warmup_epochs: Annotated[int, Within(ge=0)] = 0
    #: How it falls, where the loss stands still or by a cosine to zero over `epochs` (3.2).
    decay: Literal["plateau", "cosine"] = "plateau"
    #: Adam's memory of gradients (3.2).
    beta_1: Annotated[float, Within(ge=0, lt=1)] = 0.9
    #: Adam's memory of squared gradients (3.2).
    beta_2: Annotated[float, Within(ge=0, lt=1)] = 0.999
    #: Weight of the squared weights in the loss (3.2).
    l2: ZeroToOne = 1e-5
    #: Patches of a batch (open).
    batch_size: Count = 1
    #: Axial slices of a batch, for the 2D baseline (open).
    batch_size_2d: Count = 16
    #: Epochs at most (3.2).
    epochs: Count = 200
    #: The learning rate is multiplied by this on a plateau (3.2).
    plateau_factor: Annotated[float, Within(gt=0, lt=1)] = 0.2
    #: Epochs without a better validation loss that make a plateau (3.2).
    plateau_patience: Count = 6
    #: Epochs without a better validation loss that end a training (3.2).
    stop_patience: Count = 15
    #: Folds of the cross-validation (3.2).
    folds: Annotated[int, Within(ge=2)] = 5
    #: Stop early on a fold of its own, and not on the fold that is scored (open).
    inner_validation: bool = False
    #: Type in which convolutions compute; weights, sums and probabilities are float32 (open).
    precision: Precision = "float32"
    #: From which folds, weights, patches and rotations are drawn.
    seed: Annotated[int, Within(ge=0)] = 2019

    # Prediction and post-processing

    #: Probability from which a voxel belongs to L-Net's mask (open).
    lnet_threshold: Threshold = 0.5
    #: By how much L-Net's mask is then widened (open; the paper names no margin).
    lnet_margin_mm: Annotated[float, Within(ge=0, le=100)] = 0.0
    #: T, the probability from which a voxel surely belongs to a region (Algorithm 1).
    high_threshold: Threshold = 0.5
    #: Probability down to which the whole region grows (Algorithm 1).
    whole_low_threshold: Threshold = 0.4
    #: Probability down to which a tumor grows (Algorithm 1).
    tumor_low_threshold: Threshold = 0.3
    #: Probability down to which a small tumor grows (Algorithm 1).
    small_tumor_low_threshold: Threshold = 0.2
    #: Probability that is enough where nothing reaches T (Algorithm 1).
    empty_low_threshold: Threshold = 0.1
    #: A tumor of fewer voxels of the paper's grid, or their volume, is small (Algorithm 1).
    small_tumor_voxels: Annotated[int, Within(ge=0)] = 100
    #: Without any tumor, the whole region is taken for it (Algorithm 1, line 14).
    tumor_is_whole_if_none: bool = True
    #: What lines 12 and 14 of Algorithm 1 have found outlives line 17 (open).
    keep_low_if_high_empty: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        factor = 2 ** (self.levels - 1)
        for name in ("patch_shape", "lnet_shape"):
            if any(size % factor for size in getattr(self, name)):
                raise DataError(
                    f"{name}: {getattr(self, name)} must be divisible by {factor}, "
                    f"for {self.levels} levels halve it {self.levels - 1} times"
                )
        if any(g % n for g, n in zip(self.grid_shape, self.lnet_shape, strict=True)):
            raise DataError(f"grid_shape {self.grid_shape} is no multiple of {self.lnet_shape}")
        if any(p > g for p, g in zip(self.patch_shape, self.grid_shape, strict=True)):
            raise DataError(f"patch_shape {self.patch_shape} is larger than {self.grid_shape}")
        if any(s > p for s, p in zip(self.patch_stride, self.patch_shape, strict=True)):
            raise DataError(f"patch_stride {self.patch_stride} leaves gaps between patches")
        if self.clip_hu is not None and not self.clip_hu[0] < self.clip_hu[1]:
            raise DataError(f"clip_hu {self.clip_hu} is no window: give (lowest, highest)")
        if self.foreground_fraction + self.tumor_fraction > 1:
            raise DataError("foreground_fraction + tumor_fraction must lie in 0 to 1")
        if self.filters % self.norm_groups:
            raise DataError(
                f"norm_groups: {self.filters} filters make no {self.norm_groups} groups"
            )

    @property
    def grid_spacing_mm(self) -> tuple[float, float, float]:
        """Size of one grid voxel, (z, y, x) in mm."""
        z, y, x = (f / n for f, n in zip(self.grid_fov_mm, self.grid_shape, strict=True))
        return z, y, x

    @property
    def lnet_downsampling(self) -> tuple[int, int, int]:
        """How many grid voxels make one L-Net voxel, (z, y, x)."""
        z, y, x = (g // n for g, n in zip(self.grid_shape, self.lnet_shape, strict=True))
        return z, y, x

    @classmethod
    def preset(cls, name: Preset, **changes: Any) -> Config:
        """Give a preset, with any field changed by name.

        Parameters
        ----------
        name
            ``"paper"`` is Vu et al. 2019. ``"course"`` is the same method at a size that
            trains on two cores: patches of all slices and a quarter of the plane in the same
            25 windows, on a coarser grid with a window of HU, and nets of half the filters that
            begin with little foreground; random patches, widely augmented; Dice over the
            batch; a higher learning rate that falls to zero over a fixed number of epochs; an
            inner split; and an L-Net whose mask is widened.
        **changes
            Fields to change. With more epochs of a cosine, `stop_patience` becomes as large: such a
            training gains most at its end.
        """
        if name not in PRESETS:
            raise DataError(f"preset {name!r} is unknown; choose from {', '.join(PRESETS)}")
        try:
            given = cls(**{**PRESETS[name], **changes})
        except TypeError as error:
            raise DataError(f"configuration: {error}") from error
        if given.decay == "cosine" and "stop_patience" not in changes:
            return dataclasses.replace(given, stop_patience=max(given.stop_patience, given.epochs))
        return given

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        save_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read a configuration that `save` wrote.

        Raises
        ------
        DataError
            The file is unreadable, lacks a field, has one too many, or a value of a
            wrong type.
        """
        values = load_json(path)
        check_names(path, values, {field.name for field in dataclasses.fields(cls)})
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**values)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def differences(self, other: Config, *, in_training: bool = False) -> list[str]:
        """Names of the fields in which two configurations differ.

        Parameters
        ----------
        other
            The other one.
        in_training
            Leave out the fields of prediction and post-processing: weights do not depend on
            them, so they may be chosen when a training is over.
        """
        names = [field.name for field in dataclasses.fields(self)]
        if in_training:
            names = names[: names.index("lnet_threshold")]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


PRESETS: dict[Preset, dict[str, Any]] = {
    "paper": {},
    "course": {
        "resample_spacing_mm": (2.5, 2.0, 2.0),
        "grid_fov_mm": (336.0, 432.0, 432.0),
        "grid_shape": (64, 112, 112),
        "clip_hu": (-200.0, 300.0),
        "lnet_shape": (32, 56, 56),
        "filters": 8,
        "first_prob": 0.05,
        "patch_shape": (64, 56, 56),
        "patch_stride": (64, 14, 14),
        "patch_sampling": "random",
        "patches_per_case": 2,
        "foreground_fraction": 0.3,
        "tumor_fraction": 0.4,
        "rotation_deg": 10.0,
        "zoom": 0.15,
        "mirror": True,
        "gain": 0.1,
        "shift": 0.1,
        "dice_over": "batch",
        "learning_rate": 2e-3,
        "warmup_epochs": 1,
        "decay": "cosine",
        "batch_size": 8,
        "batch_size_2d": 32,
        "epochs": 20,
        "stop_patience": 20,
        "inner_validation": True,
        "lnet_threshold": 0.1,
        "lnet_margin_mm": 8.0,
    },
}


# What a network takes in at once: a patch, an axial slice, or all of the downsampled volume.
SEES: dict[str, Literal["slice", "patch", "volume"]] = {
    "unet2d": "slice",
    "unet3d": "patch",
    "tunet": "patch",
    "lnet": "volume",
}


@dataclass(frozen=True)
class Variant:
    """One trained system: a network, with or without squeeze-and-excite and median filter."""

    name: str
    title: str
    network: Literal["unet2d", "unet3d", "tunet", "lnet"]
    squeeze_excite: bool = False
    median: bool = False

    @property
    def sees(self) -> Literal["slice", "patch", "volume"]:
        """What the network takes in at once."""
        return SEES[self.network]

    @property
    def regions(self) -> tuple[str, ...]:
        """The channels that the network gives."""
        return ("whole",) if self.sees == "volume" else ("whole", "tumor")

    def patch_shape(self, config: Config) -> tuple[int, int, int]:
        """Give what the network takes in at once, in its own voxels (z, y, x)."""
        return {
            "slice": (1, *config.grid_shape[1:]),
            "patch": config.patch_shape,
            "volume": config.lnet_shape,
        }[self.sees]

    def patch_stride(self, config: Config) -> tuple[int, int, int]:
        """Give how far apart the windows lie; a slice or a volume is one window where it fits."""
        return config.patch_stride if self.sees == "patch" else self.patch_shape(config)

    def downsampling(self, config: Config) -> tuple[int, int, int]:
        """Give how many grid voxels make one voxel of the network, (z, y, x)."""
        return config.lnet_downsampling if self.sees == "volume" else (1, 1, 1)


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("unet2d", "U-Net 2D", "unet2d"),
        Variant("unet2d_median", "U-Net 2D + median", "unet2d", median=True),
        Variant("unet3d", "U-Net 3D", "unet3d"),
        Variant("unet3d_median", "U-Net 3D + median", "unet3d", median=True),
        Variant("tunet", "TuNet", "tunet"),
        Variant("tunet_median", "TuNet + median", "tunet", median=True),
        Variant("tunet_seb", "TuNet + SEB", "tunet", squeeze_excite=True),
        Variant(
            "tunet_seb_median", "TuNet + SEB + median", "tunet", squeeze_excite=True, median=True
        ),
        Variant("lnet", "L-Net", "lnet"),
        Variant("lnet_median", "L-Net + median", "lnet", median=True),
    )
}

ENSEMBLE = ("tunet", "tunet_median", "tunet_seb", "tunet_seb_median")  # 3.6
LOCALIZERS = ("lnet", "lnet_median")
