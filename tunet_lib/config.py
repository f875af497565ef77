"""Every number of the method, once, with the presets `paper` and `course`.

Axis order is (z, y, x) everywhere; the paper writes (x, y, z). A comment names the
paper's section, or says "open" where the paper is silent and a reading was chosen.

The paper map (``book/paper_map.md``) leads from each number to its chapter.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunet_lib.files import DataError, load_json, save_json

Preset = Literal["paper", "course"]
Precision = Literal["float32", "float16", "bfloat16"]
Windows = Literal["all", "mask", "box"]


@dataclass(frozen=True)
class Config:
    """Every number of Vu et al. 2019; the defaults are the preset `paper`.

    Raises
    ------
    DataError
        A value is of a wrong type or outside its range, or two contradict each other.
    """

    # Preprocessing (3.4, Fig. 4)
    resample_spacing_mm: tuple[float, float, float] = (2.5, 1.0, 1.0)  # open
    grid_fov_mm: tuple[float, float, float] = (755.0, 533.0, 533.0)  # largest training case
    grid_shape: tuple[int, int, int] = (128, 256, 256)
    pad_hu: float = -1000.0  # open: air
    median_size: int = 3  # 3.2
    clip_hu: tuple[float, float] | None = None  # open: the paper names no window

    # Networks (2.1-2.3)
    lnet_shape: tuple[int, int, int] = (64, 128, 128)  # 2.1
    levels: int = 4  # open
    filters: int = 16  # open: level d has 16 * 2^d and 32 * 2^d filters
    norm_groups: int = 8  # open
    se_ratio: int = 16  # Hu et al. 2018

    # Patches (3.3) and augmentation (3.4)
    patch_shape: tuple[int, int, int] = (128, 128, 128)
    patch_stride: tuple[int, int, int] = (32, 32, 32)
    patch_sampling: Literal["windows", "random"] = "windows"
    patches_per_case: int = 25  # open: in one epoch; 5 x 5 windows in plane
    foreground_fraction: float = 0.0  # share of random patches that hold a kidney voxel
    tumor_fraction: float = 0.0  # share of random patches that hold a tumor voxel
    rotation_deg: float = 1.0

    # Loss (Eq. 2) and training (3.2)
    dice_over: Literal["sample", "batch"] = "sample"  # open
    dice_epsilon: float = 1e-5  # open
    learning_rate: float = 1e-4
    decay: Literal["plateau", "cosine"] = "plateau"  # cosine: to zero over `epochs`
    beta_1: float = 0.9
    beta_2: float = 0.999
    l2: float = 1e-5
    batch_size: int = 1  # open
    batch_size_2d: int = 16  # open: axial slices a batch for the 2D baseline
    epochs: int = 200
    plateau_factor: float = 0.2
    plateau_patience: int = 6
    stop_patience: int = 15
    folds: int = 5
    inner_validation: bool = False  # open: False stops early on the fold that is scored
    # open: in which type convolutions compute; weights, sums and probabilities are float32
    precision: Precision = "float32"
    seed: int = 2019

    # Prediction and post-processing (3.5, Algorithm 1)
    lnet_threshold: float = 0.5  # open
    high_threshold: float = 0.5
    whole_low_threshold: float = 0.4
    tumor_low_threshold: float = 0.3
    small_tumor_low_threshold: float = 0.2
    empty_low_threshold: float = 0.1
    small_tumor_voxels: int = 100  # on the paper's grid; scaled by voxel volume on others
    tumor_is_whole_if_none: bool = True  # Algorithm 1, line 14
    keep_low_if_high_empty: bool = True  # open: Algorithm 1, line 17

    def __post_init__(self) -> None:
        self._check_values()
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

    def _check_values(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _has_type(value, hint):
                raise DataError(f"{name} is {value!r}, expected {hint}")
            numbers = value if isinstance(value, tuple) else (value,)
            if rule := _broken_rule(name, hint, numbers):
                raise DataError(f"{name} is {value}, must {rule}")

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
            trains on two cores: a coarser grid, a window of HU, smaller nets and patches,
            random patches, Dice over the batch, and a higher learning rate that falls to zero
            over a fixed number of epochs.
        **changes
            Fields to change.
        """
        if name not in PRESETS:
            raise DataError(f"preset {name!r} is unknown; choose from {', '.join(PRESETS)}")
        try:
            return cls(**{**PRESETS[name], **changes})
        except TypeError as error:
            raise DataError(f"configuration: {error}") from error

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
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            wrong = sorted(names ^ set(values)) if isinstance(values, dict) else "no fields at all"
            raise DataError(f"{path}: is from another version of tunet_lib (differs in {wrong})")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**values)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def differences(self, other: Config) -> list[str]:
        """Names of the fields in which two configurations differ."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


PRESETS: dict[Preset, dict[str, Any]] = {
    "paper": {},
    "course": {
        "resample_spacing_mm": (2.5, 2.0, 2.0),
        "grid_fov_mm": (336.0, 432.0, 432.0),
        "grid_shape": (48, 80, 80),
        "clip_hu": (-200.0, 300.0),
        "lnet_shape": (24, 40, 40),
        "levels": 3,
        "filters": 8,
        "patch_shape": (16, 32, 32),
        "patch_stride": (12, 16, 16),
        "patch_sampling": "random",
        "patches_per_case": 2,
        "foreground_fraction": 0.3,
        "tumor_fraction": 0.4,
        "dice_over": "batch",
        "learning_rate": 2e-3,
        "batch_size": 4,
        "decay": "cosine",
        "epochs": 38,
        "stop_patience": 38,
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
        """Give how far apart the windows lie; a slice or a volume is one window."""
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


def _broken_rule(name: str, hint: Any, numbers: tuple[Any, ...]) -> str | None:
    """Say what a field's numbers must be and are not."""
    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
        return "be finite"
    if name.endswith(("_fraction", "_threshold")):
        return None if 0 <= min(numbers) <= max(numbers) <= 1 else "lie in 0 to 1"
    if name in ("seed", "l2"):
        return None if min(numbers) >= 0 else "be at least 0"
    if name.endswith(("_rate", "_factor", "_mm", "_epsilon")):
        return None if min(numbers) > 0 else "be above 0"
    whole_numbers = hint in (int, tuple[int, int, int])
    return "be at least 1" if whole_numbers and min(numbers) < 1 else None


def _has_type(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin is types.UnionType:
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(map(_has_type, value, arguments))
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))
