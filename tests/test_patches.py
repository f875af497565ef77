from dataclasses import dataclass, replace

import numpy as np
import pytest
from tiny import SHAPE, TinyCase, tiny_config, write_cases

from tunet_lib.config import VARIANTS
from tunet_lib.patches import Augmentation, PatchDataset, PatchSource, rotate_in_plane
from tunet_lib.windows import block_mean

TUNET = VARIANTS["tunet"]


@dataclass(frozen=True)
class MemoryCase:
    """A case in memory."""

    image: np.ndarray
    labels: np.ndarray
    case_id: str = "case_00000"

    def volume(self, median):
        return self.image + 100 if median else self.image

    def label(self):
        return self.labels


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("prepared"), 3)


def random_patch(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("order", [0, 1])
def test_no_rotation_changes_nothing(order):
    patch = random_patch(2, 5, 6)
    np.testing.assert_array_equal(rotate_in_plane(patch, 0.0, order), patch)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("turns", [1, 2, -1])
def test_right_angles(order, size, turns):
    patch = random_patch(2, size, size)
    expected = np.rot90(patch, -turns, axes=(1, 2))  # which turns counter-clockwise
    np.testing.assert_allclose(rotate_in_plane(patch, 90 * turns, order), expected, atol=1e-5)


@pytest.mark.parametrize("angle_deg", [1.0, -30.0, 90.0])
@pytest.mark.parametrize("order", [0, 1])
def test_rotation_keeps_a_constant(order, angle_deg):
    patch = np.full((2, 7, 9), 3.25, np.float32)
    np.testing.assert_allclose(rotate_in_plane(patch, angle_deg, order), patch, rtol=1e-6)


def test_rotated_labels_are_labels():
    # Between 0 and 2 an interpolation would give 1.
    label = 2 * np.random.default_rng(0).integers(0, 2, (3, 12, 12)).astype(np.uint8)
    rotated = rotate_in_plane(label, 17.0, order=0)
    assert rotated.dtype == np.uint8
    assert set(np.unique(rotated)) == {0, 2}
    assert (rotated != label).any()


@pytest.mark.parametrize("angle_deg", [-1.0, 0.5, 1.0])
def test_small_angles_leave_a_round_pattern_and_turn_any_other(angle_deg):
    y, x = np.indices((33, 33)) - 16.0
    round_one = np.exp(-(y**2 + x**2) / 60)[None].astype(np.float32)
    ramp = x[None].astype(np.float32)
    np.testing.assert_allclose(rotate_in_plane(round_one, angle_deg, 1), round_one, atol=2e-3)
    # A ramp is linear, so its rotation is exact away from the border.
    turn = np.deg2rad(angle_deg)
    expected = x * np.cos(turn) + y * np.sin(turn)
    inner = np.s_[2:-2, 2:-2]
    found = rotate_in_plane(ramp, angle_deg, 1)[0]
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-4)


def test_image_and_label_turn_alike_and_nothing_comes_from_the_patchs_border():
    y, x = np.indices((32, 32)) - 15.5
    label = np.broadcast_to((x > 3 * y), (2, 32, 32)).astype(np.uint8)
    case = MemoryCase(label.astype(np.float16), label)
    config = tiny_config(
        grid_shape=(2, 32, 32),
        lnet_shape=(2, 16, 16),
        patch_shape=(2, 8, 8),
        patch_stride=(2, 4, 4),
    )
    source = PatchSource(case, TUNET, config)
    image, target = source.patch((0, 12, 12), Augmentation(angle_deg=10.0))
    assert image.shape == (2, 8, 8, 1)
    assert target.shape == (2, 8, 8, 2)
    assert ((image[..., 0] >= 0.5) == (target[..., 0] > 0)).all()
    assert (target[..., 0] != label[:, 12:20, 12:20]).any()
    # As if the whole slice had been rotated about the patch's center.
    expected = rotate_in_plane(label, 10.0, 0)[:, 12:20, 12:20]
    np.testing.assert_array_equal(target[..., 0], expected > 0)


def test_zoom_and_mirror():
    patch = random_patch(2, 8, 8)
    mirrored = rotate_in_plane(patch, 0.0, 1, mirror=True)
    np.testing.assert_array_equal(mirrored, patch[..., ::-1])
    # Turned clockwise and then mirrored, as one step and as two.
    turned = rotate_in_plane(patch, 90.0, 1)[..., ::-1]
    np.testing.assert_allclose(rotate_in_plane(patch, 90.0, 1, mirror=True), turned, atol=1e-5)
    # A ramp of twice the size is half as steep.
    ramp = np.broadcast_to(np.arange(-7.5, 8).astype(np.float32), (1, 16, 16))
    np.testing.assert_allclose(rotate_in_plane(ramp, 0.0, 1, zoom=2.0), ramp / 2, atol=1e-6)
    np.testing.assert_allclose(
        rotate_in_plane(ramp, 0.0, 1, zoom=0.8, margin=4), 1.25 * ramp[:, 4:-4, 4:-4], atol=1e-5
    )


@pytest.mark.parametrize("order", [0, 1])
def test_zooming_keeps_a_constant(order):
    patch = np.full((2, 9, 9), 3.25, np.float32)
    zoomed = rotate_in_plane(patch, 7.0, order, zoom=0.7, mirror=True, margin=1)
    np.testing.assert_allclose(zoomed, patch[:, 1:-1, 1:-1], rtol=1e-6)


def test_a_margin_is_wide_enough_for_every_corner():
    config = tiny_config(rotation_deg=180.0, zoom=0.3, mirror=True)
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = Augmentation.draw(config, rng)
        margin = changed.margin(16)
        size = 16 + 2 * margin
        y, x = np.indices((size, size)) - (size - 1) / 2
        for ramp in (y, x):  # what comes from beyond the border is repeated, and no ramp
            turn = np.deg2rad(changed.angle_deg)
            down, right = y, -x if changed.mirror else x
            source = {
                id(y): np.cos(turn) * down - np.sin(turn) * right,
                id(x): np.sin(turn) * down + np.cos(turn) * right,
            }[id(ramp)] / changed.zoom
            found = rotate_in_plane(
                ramp[None], changed.angle_deg, 1,
                zoom=changed.zoom, mirror=changed.mirror, margin=margin,
            )[0]  # fmt: skip
            inner = np.s_[margin : size - margin, margin : size - margin]
            np.testing.assert_allclose(found, source[inner], atol=1e-3)


def test_augmentations_fill_the_configured_ranges_and_reach_the_patch(cases):
    config = tiny_config(rotation_deg=5.0, zoom=0.2, mirror=True, gain=0.3, shift=0.4)
    rng = np.random.default_rng(0)
    drawn = [Augmentation.draw(config, rng) for _ in range(500)]
    for name, low, high in (
        ("angle_deg", -5, 5), ("zoom", 0.8, 1.2), ("gain", 0.7, 1.3), ("shift", -0.4, 0.4)
    ):  # fmt: skip
        values = [getattr(changed, name) for changed in drawn]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert 0.4 < np.mean([changed.mirror for changed in drawn]) < 0.6
    none = Augmentation.draw(tiny_config(rotation_deg=0.0), rng)
    assert none == Augmentation()
    source = PatchSource(cases[0], TUNET, config)
    plain, truth = source.patch((0, 4, 4))
    changed, same = source.patch((0, 4, 4), Augmentation(mirror=True, gain=1.5, shift=-0.25))
    np.testing.assert_allclose(changed, 1.5 * plain[:, :, ::-1] - 0.25, rtol=1e-5)
    np.testing.assert_array_equal(same, truth[:, :, ::-1])


def test_whole_includes_tumor():
    label = np.array([0, 1, 2, 0], np.uint8).reshape(1, 2, 2)
    case = MemoryCase(label.astype(np.float16), label)
    config = tiny_config(
        grid_shape=(1, 2, 2), lnet_shape=(1, 2, 2), patch_shape=(1, 2, 2), patch_stride=(1, 1, 1),
        levels=1,
    )  # fmt: skip
    _, target = PatchSource(case, TUNET, config).patch((0, 0, 0))
    np.testing.assert_array_equal(target[0, ..., 0], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(target[0, ..., 1], [[0, 0], [1, 0]])
    _, target = PatchSource(case, VARIANTS["lnet"], config).patch((0, 0, 0))
    np.testing.assert_array_equal(target[0], [[[0], [1]], [[1], [0]]])


def drawn_starts(tumor_fraction, foreground_fraction, count=2000, label=None):
    shape = (32, 64, 64)
    if label is None:
        label = np.zeros(shape, np.uint8)
        label[10:18, 20:28, 30:38] = 1
        label[10:14, 20:28, 30:38] = 2  # half of the whole
    config = tiny_config(
        grid_shape=shape, tumor_fraction=tumor_fraction, foreground_fraction=foreground_fraction
    )
    source = PatchSource(MemoryCase(np.zeros(shape, np.float16), label), TUNET, config)
    rng = np.random.default_rng(0)
    starts = np.array([source.random_start(rng) for _ in range(count)])
    assert starts.min() >= 0
    assert (starts <= np.array(shape) - 8).all()
    return label, starts


def held(label, starts):
    """Give the highest label in each patch of 8 voxels a side."""
    return np.array([label[z : z + 8, y : y + 8, x : x + 8].max() for z, y, x in starts])


@pytest.mark.parametrize(
    ("tumor_fraction", "foreground_fraction", "whole"),
    [(0.5, 0.25, 0.75 + 0.25 * 0.042), (0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 0.0, 0.042)],
)  # of 25 * 57 * 57 uniform corners, 15 * 15 * 15 reach the kidney
def test_as_many_patches_as_asked_for_hold_foreground(tumor_fraction, foreground_fraction, whole):
    label, starts = drawn_starts(tumor_fraction, foreground_fraction)
    assert (held(label, starts) > 0).mean() == pytest.approx(whole, abs=0.02)
    if tumor_fraction == 1:
        assert (held(label, starts) == 2).all()


def test_the_voxel_that_a_patch_must_hold_lies_anywhere_in_it():
    label = np.zeros((32, 64, 64), np.uint8)
    label[16, 30, 40] = 2
    _, starts = drawn_starts(1.0, 0.0, label=label)
    within = np.array([16, 30, 40]) - starts
    for axis in range(3):
        share = np.bincount(within[:, axis], minlength=8) / len(within)
        np.testing.assert_allclose(share, 1 / 8, atol=0.03)


def test_uniform_corners_reach_every_place():
    _, starts = drawn_starts(0.0, 0.0)
    np.testing.assert_array_equal(starts.min(axis=0), 0)
    np.testing.assert_array_equal(starts.max(axis=0), [24, 56, 56])


def test_a_case_without_foreground_is_drawn_from_uniformly():
    _, starts = drawn_starts(0.5, 0.5, label=np.zeros((32, 64, 64), np.uint8))
    np.testing.assert_array_equal(starts.max(axis=0), [24, 56, 56])


def test_foreground_at_the_border_is_inside_the_patch():
    label = np.zeros((32, 64, 64), np.uint8)
    label[0, 0, 0] = label[31, 63, 63] = 2
    _, starts = drawn_starts(1.0, 0.0, count=20, label=label)
    assert {tuple(start) for start in starts.tolist()} == {(0, 0, 0), (24, 56, 56)}


def batches(dataset):
    return [dataset[index] for index in range(len(dataset))]


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all((a == c).all() and (b == d).all() for (a, b), (c, d) in pairs)


@pytest.mark.parametrize(
    ("name", "space", "channels", "batch"),
    [
        ("tunet", (8, 8, 8), 2, 2),
        ("unet3d", (8, 8, 8), 2, 2),
        ("unet2d", (16, 16), 2, 4),
        ("lnet", (4, 8, 8), 1, 2),
    ],
)
@pytest.mark.parametrize("sampling", ["windows", "random"])
def test_shape_type_and_range_of_a_batch(cases, name, space, channels, batch, sampling):
    config = tiny_config(patch_sampling=sampling)
    dataset = PatchDataset(cases, VARIANTS[name], config, seed=(1,))
    for image, target in batches(dataset):
        assert image.shape == (batch, *space, 1)
        assert target.shape == (batch, *space, channels)
        assert image.dtype == target.dtype == np.float32
        assert set(np.unique(target)) <= {0, 1}
        assert -4 < image.min() < image.max() < 6
    assert sum(target[..., -1].sum() for _, target in batches(dataset)) > 0


def test_the_median_variants_see_the_median_volume(cases):
    dataset = PatchDataset(cases, VARIANTS["tunet_median"], tiny_config(), seed=(1,))
    assert dataset[0][0].min() > 50


def test_the_seed_decides(cases):
    config = tiny_config()
    epoch = batches(PatchDataset(cases, TUNET, config, seed=(2019, 0, 1)))
    assert same(epoch, batches(PatchDataset(cases, TUNET, config, seed=(2019, 0, 1))))
    assert not same(epoch, batches(PatchDataset(cases, TUNET, config, seed=(2019, 0, 2))))
    assert not same(epoch, batches(PatchDataset(cases, TUNET, config, seed=(2018, 0, 1))))


def test_every_patch_of_every_batch_has_its_own_rotation(cases, monkeypatch):
    patch, drawn = PatchSource.patch, []

    def noted(self, start, changed):
        drawn.append(changed)
        return patch(self, start, changed)

    monkeypatch.setattr(PatchSource, "patch", noted)
    config = tiny_config(rotation_deg=20.0, patch_sampling="windows", patch_stride=(8, 8, 8))
    turned = PatchDataset(cases, TUNET, config, seed=(1,))
    batches(turned)
    assert len(turned) > 1
    assert len({changed.angle_deg for changed in drawn}) == len(drawn) == len(turned.items)
    plain = PatchDataset(cases, TUNET, replace(config, rotation_deg=0.0), seed=(1,))
    pairs = list(zip(batches(turned), batches(plain), strict=True))
    assert all((a != c).any() for (a, _), (c, _) in pairs)
    assert all(a.mean() == pytest.approx(c.mean(), abs=0.3) for (a, _), (c, _) in pairs)


def test_windows_in_order_without_augmentation(cases):
    config = tiny_config(patch_sampling="windows", patch_stride=(8, 8, 8), batch_size=4)
    dataset = PatchDataset(cases, TUNET, config, seed=(1,), augment=False)
    assert len(dataset) == 3
    for (image, target), case in zip(batches(dataset), cases, strict=True):
        for index, (y, x) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
            block = np.s_[:, y : y + 8, x : x + 8]
            np.testing.assert_array_equal(image[index, ..., 0], case.volume(False)[block])
            np.testing.assert_array_equal(target[index, ..., 0], case.label()[block] > 0)


def test_slices_of_the_2d_network_are_all_of_them_once(cases):
    config = tiny_config(patch_sampling="windows", batch_size_2d=8)
    dataset = PatchDataset(cases, VARIANTS["unet2d"], config, seed=(1,), augment=False)
    for (image, target), case in zip(batches(dataset), cases, strict=True):
        np.testing.assert_array_equal(image[..., 0], case.volume(False))
        np.testing.assert_array_equal(target[..., 1], case.label() == 2)


def test_lnet_sees_the_whole_volume_downsampled(cases):
    config = tiny_config(patch_sampling="windows", batch_size=1)
    dataset = PatchDataset(cases, VARIANTS["lnet"], config, seed=(1,), augment=False)
    assert len(dataset) == 3
    for (image, target), case in zip(batches(dataset), cases, strict=True):
        means = block_mean(case.volume(False), (2, 2, 2))
        np.testing.assert_array_equal(image[0, ..., 0], means.astype(np.float16))
        shares = block_mean(case.label() > 0, (2, 2, 2))
        np.testing.assert_array_equal(target[0, ..., 0], shares >= 0.5)


def test_incomplete_last_batch_is_left_out_of_training_and_kept_in_validation(cases):
    config = tiny_config(patch_sampling="windows", patch_stride=(8, 8, 8), batch_size=5)
    training = PatchDataset(cases, TUNET, config, seed=(1,))
    assert [len(image) for image, _ in batches(training)] == [5, 5]  # of 12 windows
    validation = PatchDataset(cases, TUNET, config, seed=(1,), augment=False)
    assert [len(image) for image, _ in batches(validation)] == [5, 5, 2]
    few = PatchDataset(cases, TUNET, replace(config, batch_size=16), seed=(1,))
    assert [len(image) for image, _ in batches(few)] == [12]


def test_epochs_are_shuffled(cases):
    config = tiny_config(patch_sampling="windows")
    orders = [
        [(source.case.case_id, start) for source, start in dataset.items]
        for dataset in (PatchDataset(cases, TUNET, config, seed=(seed,)) for seed in (1, 2))
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_a_2d_epoch_has_about_as_many_voxels_as_a_3d_epoch(cases):
    config = tiny_config(patches_per_case=3)
    slices = len(PatchDataset(cases, VARIANTS["unet2d"], config, seed=(1,)).items)
    patches = len(PatchDataset(cases, TUNET, config, seed=(1,)).items)
    assert patches == 9
    assert slices * 16 * 16 == patches * 8 * 8 * 8


def test_only_the_patch_is_read_from_a_memory_map(tmp_path):
    case = write_cases(tmp_path, 1)[0]
    read = []

    class Watched(np.memmap):
        def __getitem__(self, key):
            result = super().__getitem__(key)
            if isinstance(result, Watched):
                read.append(result.size)
            return result

    class WatchedCase(TinyCase):
        def volume(self, median):
            return super().volume(median).view(Watched)

    config = tiny_config(patch_shape=(2, 4, 4), patch_stride=(2, 4, 4), rotation_deg=1.0)
    assert isinstance(case.volume(False), np.memmap)
    dataset = PatchDataset([WatchedCase(case.case_id, case.folder)], TUNET, config, seed=(1,))
    dataset[0]
    assert read
    assert max(read) <= 2 * 6 * 6  # with a margin of one voxel in plane
    assert np.prod(SHAPE) == 2048
