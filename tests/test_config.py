import dataclasses

import pytest

from tunet_lib.config import ENSEMBLE, LOCALIZERS, VARIANTS, Config
from tunet_lib.files import DataError, load_json, save_json


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
    same = ("beta_1", "beta_2", "l2", "plateau_factor", "folds", "rotation_deg", "median_size")
    algorithm_1 = [f.name for f in dataclasses.fields(Config) if "threshold" in f.name]
    differ = Config.preset("course").differences(Config.preset("paper"))
    assert {"grid_shape", "patch_shape", "filters"} <= set(differ)
    assert not set(differ) & {*same, *algorithm_1}


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


def test_the_ends_of_the_ranges_are_allowed():
    Config.preset("paper", seed=0, l2=0, high_threshold=1, empty_low_threshold=0)


def test_unknown_preset():
    with pytest.raises(DataError, match="'papper' is unknown; choose from paper, course"):
        Config.preset("papper")


def test_unknown_field():
    with pytest.raises(DataError, match="learning_rat"):
        Config.preset("paper", learning_rat=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_shape": (128, 128, 100)}, "must be divisible by 8"),
        ({"lnet_shape": (4, 128, 128)}, "must be divisible by 8"),
        ({"lnet_shape": (64, 128, 96)}, "no multiple"),
        ({"patch_shape": (256, 128, 128)}, "larger than"),
        ({"patch_stride": (32, 32, 129)}, "gaps"),
        ({"patch_stride": (32, 0, 32)}, "patch_stride .* at least 1"),
        ({"batch_size": 0}, "batch_size .* at least 1"),
        ({"levels": 0}, "levels .* at least 1"),
        ({"filters": 12}, "norm_groups"),
        ({"foreground_fraction": 0.6, "tumor_fraction": 0.6}, "0 to 1"),
        ({"foreground_fraction": -0.1}, "0 to 1"),
        ({"foreground_fraction": -0.1, "tumor_fraction": 0.2}, "0 to 1"),
        ({"epochs": "20"}, "epochs is '20'"),
        ({"seed": -1}, "seed .* at least 0"),
        ({"l2": -1e-5}, "l2 .* at least 0"),
        ({"learning_rate": 0.0}, "learning_rate .* above 0"),
        ({"learning_rate": float("nan")}, "learning_rate .* finite"),
        ({"pad_hu": float("-inf")}, "pad_hu .* finite"),
        ({"clip_hu": (0.0, float("inf"))}, "clip_hu .* finite"),
        ({"plateau_factor": 0}, "plateau_factor .* above 0"),
        ({"grid_fov_mm": (755.0, 0.0, 533.0)}, "grid_fov_mm .* above 0"),
        ({"high_threshold": 1.5}, "high_threshold .* 0 to 1"),
        ({"empty_low_threshold": -0.1}, "empty_low_threshold .* 0 to 1"),
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
    with pytest.raises(DataError, match="extra"):
        Config.load(path)
    del values["seed"]
    save_json(path, values)
    with pytest.raises(DataError, match="seed"):
        Config.load(path)
