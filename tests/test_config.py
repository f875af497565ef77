import dataclasses
import inspect
import math
import re
import typing

import pytest

from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config
from tunet_lib.files import DataError, load_json, save_json
from tunet_lib.windows import window_starts

HINTS = typing.get_type_hints(Config, include_extras=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lnet_shape", (64, 128, 128)),  # (z, y, x) of the paper's 128x128x64, 2.1
        ("learning_rate", 1e-4),  # 3.2
        ("beta_1", 0.9),
        ("beta_2", 0.999),
        ("l2", 1e-5),
        ("epochs", 200),
        ("plateau_factor", 0.2),
        ("plateau_patience", 6),
        ("stop_patience", 15),
        ("folds", 5),
        ("median_size", 3),
        ("patch_shape", (128, 128, 128)),  # 3.3
        ("patch_stride", (32, 32, 32)),  # 128 less the overlap of 96
        ("grid_shape", (128, 256, 256)),  # 3.4
        ("rotation_deg", 1.0),
        ("high_threshold", 0.5),  # Algorithm 1
        ("whole_low_threshold", 0.4),
        ("tumor_low_threshold", 0.3),
        ("small_tumor_low_threshold", 0.2),
        ("empty_low_threshold", 0.1),
        ("small_tumor_voxels", 100),
    ],
)
def test_what_the_paper_fixes(name, value):
    assert getattr(Config.preset("paper"), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resample_spacing_mm", (2.5, 1.0, 1.0)),
        ("pad_hu", -1000.0),
        ("grid_fov_mm", (755.0, 533.0, 533.0)),
        ("levels", 4),
        ("filters", 16),
        ("norm_groups", 8),
        ("se_ratio", 16),
        ("patch_sampling", "windows"),
        ("patches_per_case", 25),
        ("foreground_fraction", 0.0),
        ("tumor_fraction", 0.0),
        ("dice_over", "sample"),
        ("batch_size", 1),
        ("inner_validation", False),
        ("precision", "float32"),
        ("lnet_threshold", 0.5),
        ("tumor_is_whole_if_none", True),
        ("keep_low_if_high_empty", True),
    ],
)
def test_reading_chosen_where_the_paper_is_open(name, value):
    assert getattr(Config.preset("paper"), name) == value


def test_grid_spacing_of_the_paper():
    assert Config().grid_spacing_mm == pytest.approx((5.8984, 2.0820, 2.0820), abs=1e-4)


def test_paper_is_the_default():
    assert Config.preset("paper") == Config()


def test_course_is_the_same_method_at_another_size():
    paper, course = Config.preset("paper"), Config.preset("course")
    same = ("beta_1", "beta_2", "l2", "plateau_factor", "folds", "levels", "median_size")
    fields = [field.name for field in dataclasses.fields(Config)]
    algorithm_1 = fields[fields.index("high_threshold") :]
    differ = set(course.differences(paper))
    assert {"grid_shape", "patch_shape", "filters"} <= differ
    assert not differ & {*same, *algorithm_1}


def test_both_presets_cut_25_windows_from_half_of_the_plane():
    for preset in (Config.preset("paper"), Config.preset("course")):
        assert len(window_starts(preset.grid_shape, preset.patch_shape, preset.patch_stride)) == 25
        assert preset.patch_shape[0] == preset.grid_shape[0]
        assert [2 * p for p in preset.patch_shape[1:]] == [*preset.grid_shape[1:]]


def test_variants_are_the_rows_of_table_1_and_two_localizers():
    titles = [v.title for v in VARIANTS.values() if v.network != "lnet"]
    assert titles == [
        "U-Net 2D",
        "U-Net 2D + median",
        "U-Net 3D",
        "U-Net 3D + median",
        "TuNet",
        "TuNet + median",
        "TuNet + SEB",
        "TuNet + SEB + median",
    ]
    assert all(name == variant.name for name, variant in VARIANTS.items())
    assert tuple(v.name for v in VARIANTS.values() if v.network == "lnet") == LOCALIZERS


def test_a_title_says_what_a_variant_does():
    for variant in VARIANTS.values():
        assert variant.median == ("median" in variant.title)
        assert variant.squeeze_excite == ("SEB" in variant.title)


def test_the_ensemble_is_20_models():
    assert len(ENSEMBLE) * Config.preset("paper").folds == 20
    assert [VARIANTS[name].network for name in ENSEMBLE] == ["tunet"] * 4
    kinds = {(VARIANTS[name].squeeze_excite, VARIANTS[name].median) for name in ENSEMBLE}
    assert len(kinds) == 4


@pytest.mark.parametrize("preset", ["paper", "course"])
def test_json_gives_the_same_back(tmp_path, preset):
    config = Config.preset(preset, seed=7, rotation_deg=2)
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


def test_differences_are_named():
    config = Config.preset("course")
    assert config.differences(Config.preset("course")) == []
    other = dataclasses.replace(config, seed=1, l2=0.0)
    assert config.differences(other) == other.differences(config) == ["l2", "seed"]
    chosen = dataclasses.replace(other, lnet_threshold=0.2, empty_low_threshold=0.05)
    late = ["lnet_threshold", "empty_low_threshold"]
    assert config.differences(chosen) == ["l2", "seed", *late]
    assert config.differences(chosen, in_training=True) == ["l2", "seed"]


def test_more_epochs_of_a_cosine_are_not_stopped_early():
    assert Config.preset("course").stop_patience == Config.preset("course", epochs=5).stop_patience
    assert Config.preset("course", epochs=100).stop_patience == 100
    assert Config.preset("course", epochs=100, stop_patience=7).stop_patience == 7
    assert Config.preset("paper", epochs=500).stop_patience == Config().stop_patience


def test_unknown_preset():
    with pytest.raises(DataError, match="'papper' is unknown; choose from paper, course"):
        Config.preset("papper")


def test_unknown_field():
    with pytest.raises(DataError, match="learning_rat"):
        Config.preset("paper", learning_rat=1)


# For each field with numbers: its rule, the values just inside it, and those just outside.
LESS_THAN_1, MORE_THAN_1 = math.nextafter(1, 0), math.nextafter(1, 2)
LESS_THAN_0, MORE_THAN_0 = math.nextafter(0, -1), math.nextafter(0, 1)
AT_LEAST_1 = ("at least 1", [1], [0, -1])
ZERO_TO_ONE = ("at least 0 and at most 1", [0, 1], [LESS_THAN_0, MORE_THAN_1])
ABOVE_0_TO_1 = ("above 0 and at most 1", [MORE_THAN_0, 1], [0, -0.0, MORE_THAN_1])
BELOW_1 = ("at least 0 and below 1", [0, LESS_THAN_1], [LESS_THAN_0, 1, 5.0])
SHAPE = ("at least 1", [(1, 1, 1)], [(0, 8, 8), (8, 0, 8), (8, 8, -1)])
MM = (
    "above 0 and at most 10000",
    [(MORE_THAN_0, 1, 1), (1, 1, 10_000)],
    [(0, 1, 1), (1, -1.0, 1), (1, 1, 10_001)],
)
BOUNDS = {
    "resample_spacing_mm": MM,
    "grid_fov_mm": MM,
    "grid_shape": SHAPE,
    "pad_hu": ("at least -32768 and at most 32767", [-32768, 32767], [-32768.1, 32767.1]),
    "median_size": ("odd and at least 1", [1, 3, 5], [-1, 0, 2, 4]),
    "clip_hu": (
        "at least -32768 and at most 32767",
        [None, (-32768, 32767)],
        [(-32769, 0), (0, 32768)],
    ),
    "lnet_shape": SHAPE,
    "levels": ("at least 1 and at most 10", [1, 10], [0, 11]),
    "filters": ("at least 1", [8], [0, -8]),
    "norm_groups": AT_LEAST_1,
    "se_ratio": AT_LEAST_1,
    "first_prob": ("above 0 and below 1", [MORE_THAN_0, LESS_THAN_1], [0, 1]),
    "patch_shape": SHAPE,
    "patch_stride": ("at least 1", [(1, 1, 1)], [(32, 0, 32), (-1, 32, 32)]),
    "patches_per_case": AT_LEAST_1,
    "foreground_fraction": ZERO_TO_ONE,
    "tumor_fraction": ZERO_TO_ONE,
    "rotation_deg": ("at least 0 and at most 180", [0, 180], [LESS_THAN_0, -5, 180.1]),
    "zoom": ("at least 0 and at most 0.5", [0, 0.5], [LESS_THAN_0, 0.6]),
    "gain": BELOW_1,
    "shift": ("at least 0 and at most 10", [0, 10], [LESS_THAN_0, 10.1]),
    "dice_epsilon": ABOVE_0_TO_1,
    "learning_rate": ABOVE_0_TO_1,
    "warmup_epochs": ("at least 0", [0], [-1]),
    "beta_1": BELOW_1,
    "beta_2": BELOW_1,
    "l2": ZERO_TO_ONE,
    "batch_size": AT_LEAST_1,
    "batch_size_2d": AT_LEAST_1,
    "epochs": AT_LEAST_1,
    "plateau_factor": ("above 0 and below 1", [MORE_THAN_0, LESS_THAN_1], [0, 1]),
    "plateau_patience": AT_LEAST_1,
    "stop_patience": AT_LEAST_1,
    "folds": ("at least 2", [2], [1]),
    "seed": ("at least 0", [0], [-1]),
    "lnet_threshold": ABOVE_0_TO_1,
    "lnet_margin_mm": ("at least 0 and at most 100", [0, 100], [LESS_THAN_0, 100.1]),
    "high_threshold": ABOVE_0_TO_1,
    "whole_low_threshold": ABOVE_0_TO_1,
    "tumor_low_threshold": ABOVE_0_TO_1,
    "small_tumor_low_threshold": ABOVE_0_TO_1,
    "empty_low_threshold": ABOVE_0_TO_1,
    "small_tumor_voxels": ("at least 0", [0], [-1]),
}
FIELDS = [field.name for field in dataclasses.fields(Config)]
SHAPES = ("grid_shape", "lnet_shape", "patch_shape")
# What a field at its bound needs beside it: ten levels, 512 voxels; and one voxel, one level.
ONE_VOXEL = {"levels": 1, **dict.fromkeys((*SHAPES, "patch_stride"), (1, 1, 1))}
BESIDE = {"levels": dict.fromkeys(SHAPES, (512, 512, 512)), **dict.fromkeys(SHAPES, ONE_VOXEL)}


def test_every_field_with_numbers_has_a_bound():
    choices = [n for n in FIELDS if isinstance(getattr(Config(), n), bool | str)]
    assert [name for name in FIELDS if name not in choices] == list(BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_just_inside_its_bound_a_field_is_taken(name):
    _, inside, _ = BOUNDS[name]
    assert inside
    for value in inside:
        assert getattr(Config(**{**BESIDE.get(name, {}), name: value}), name) == value


@pytest.mark.parametrize("name", BOUNDS)
def test_just_outside_its_bound_a_field_is_refused(name):
    rule, _, outside = BOUNDS[name]
    for value in outside:
        message = re.escape(f"{name} is {value!r}, must be {rule}") + "$"
        with pytest.raises(DataError, match=message):
            Config(**{name: value})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [n for n in BOUNDS if "float" in str(HINTS[n])])
def test_a_float_is_finite(name, number):
    size = {"resample_spacing_mm": 3, "grid_fov_mm": 3, "clip_hu": 2}.get(name)
    with pytest.raises(DataError, match=f"{name} is .* must be"):
        Config(**{name: (number,) * size if size else number})


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_what_it_is_and_shows_its_bound(name):
    lines = inspect.getsource(Config).splitlines()
    (row,) = (i for i, line in enumerate(lines) if line.startswith(f"    {name}: "))
    comment = lines[row - 1].strip()
    # Sphinx would take what stands before a colon for the field's type.
    assert re.fullmatch(r"#: [A-Z][^:]+\.", comment)
    if name in BOUNDS:
        assert BOUNDS[name][0] in str(HINTS[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_shape": (128, 128, 100)}, "must be divisible by 8"),
        ({"lnet_shape": (4, 128, 128)}, "must be divisible by 8"),
        ({"lnet_shape": (64, 128, 96)}, "no multiple"),
        ({"patch_shape": (256, 128, 128)}, "larger than"),
        ({"patch_stride": (32, 32, 129)}, "gaps"),
        ({"filters": 12}, "norm_groups"),
        ({"foreground_fraction": 0.6, "tumor_fraction": 0.6}, "0 to 1"),
        ({"clip_hu": (300.0, -200.0)}, "no window"),
        ({"clip_hu": (0.0, 0.0)}, "no window"),
    ],
)
def test_contradictions(changes, message):
    with pytest.raises(DataError, match=message):
        Config.preset("paper", **changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "200"),
        ("epochs", 1.5),
        ("epochs", True),
        ("learning_rate", None),
        ("learning_rate", False),
        ("inner_validation", 1),
        ("dice_over", "pixel"),
        ("patch_shape", [128, 128]),
        ("patch_shape", [128, 128, 128.0]),
        ("patch_shape", 128),
        ("clip_hu", [0, 1, 2]),
        ("clip_hu", ["0", 1]),
        ("precision", "float64"),
        ("precision", None),
    ],
)
def test_wrong_type_in_the_file(tmp_path, name, value):
    path = tmp_path / "config.json"
    Config().save(path)
    save_json(path, {**load_json(path), name: value})
    with pytest.raises(DataError, match=name) as caught:
        Config.load(path)
    assert str(path) in str(caught.value)


def test_contradiction_in_the_file_names_the_file(tmp_path):
    path = tmp_path / "config.json"
    Config().save(path)
    save_json(path, {**load_json(path), "batch_size": 0})
    with pytest.raises(DataError, match=r"config\.json.*batch_size"):
        Config.load(path)


@pytest.mark.parametrize("content", ["[]", "{}", "3", "not json", ""])
def test_file_that_holds_no_configuration(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"config\.json"):
        Config.load(path)


def test_field_too_few_and_too_many(tmp_path):
    path = tmp_path / "config.json"
    Config().save(path)
    values = load_json(path)
    save_json(path, {**values, "extra": 1})
    with pytest.raises(DataError, match="unknown extra; correct it"):
        Config.load(path)
    values["sead"] = values.pop("seed")
    save_json(path, values)
    with pytest.raises(DataError, match=r"unknown sead \(seed\?\); missing seed; correct it"):
        Config.load(path)
