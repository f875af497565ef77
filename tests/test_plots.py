"""Plots: the right slice, the right outline, the right scale, and colors that all can tell."""

import importlib
import io
import subprocess
import sys
from itertools import combinations
from types import SimpleNamespace

import ipyniivue
import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color, to_rgb

from tunet_lib import plots

mpl.use("Agg")
SPACING_MM = (5.0, 2.0, 1.0)
SHAPE = (6, 20, 30)

# Machado et al. 2009, severity 1.0, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture
def volume_hu():
    z, y, x = np.indices(SHAPE)
    return (100 * z + y - 0.5 * x).astype(np.float32)


@pytest.fixture
def label():
    label = np.zeros(SHAPE, np.uint8)
    label[1:5, 4:10, 3:11] = 1
    label[3, 6:9, 5:9] = 2  # 12 voxels
    label[2, 6:8, 5:7] = 2
    return label


def linear_rgb(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def cielab(linear):
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / [0.95047, 1.0, 1.08883], 1e-3))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def outlines(ax):
    """The contour lines of an axes by name; each value is (collection, enclosed area)."""
    found = {}
    for lines in ax.collections:
        if lines.get_label() in ("whole", "tumor"):
            found.setdefault(lines.get_label(), []).append(lines)
    return found


def enclosed_area(lines):
    area = 0.0
    for path in lines.get_paths():
        for x, y in (polygon.T for polygon in path.to_polygons()):
            area += abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return area


def shown(ax):
    return np.asarray(ax.images[0].get_array())


def png(figure):
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_palette_is_distinguishable(deficiency):
    simulate = np.asarray(DEFICIENCIES[deficiency])
    lab = {
        name: cielab(np.clip(simulate @ linear_rgb(c), 0, 1)) for name, c in plots.PALETTE.items()
    }
    distance = {pair: np.linalg.norm(lab[pair[0]] - lab[pair[1]]) for pair in combinations(lab, 2)}
    assert min(distance.values()) > 15  # 2.3 is just noticeable
    for pair in (("whole", "tumor"), ("truth", "predicted"), ("measured", "paper")):
        assert distance[pair] > 25


def test_import_is_light():
    code = (
        "import sys, tunet_lib.plots as p; print({'matplotlib', 'ipywidgets'} & set(sys.modules))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert output.stdout.strip() == "set()"


def test_largest_slice(label):
    assert [plots.largest_slice(label, axis) for axis in range(3)] == [3, 6, 5]
    assert plots.largest_slice((label == 1).astype(np.uint8)) == 1
    assert plots.largest_slice(np.zeros(SHAPE, np.uint8)) == 3


def outlined(volume_hu, index, *labels, **options):
    """One slice with outlines, as axes."""
    ax = plots.show_slice(volume_hu, index, spacing_mm=SPACING_MM).axes[0]
    plots.show_outlines(ax, *(label[index] for label in labels), **options)
    return ax


@pytest.mark.parametrize(
    ("index", "aspect"), [(4, 2.0), (np.s_[:, 4], 5.0), (np.s_[:, :, 4], 2.5), (np.s_[1:, 4], 5.0)]
)
def test_show_slice_shows_the_slice_in_scale(volume_hu, label, index, aspect):
    ax = outlined(volume_hu, index, label)
    np.testing.assert_array_equal(shown(ax), volume_hu[index])
    assert ax.get_aspect() == aspect
    assert ax.images[0].get_clim() == (-160, 240)
    rows, columns = volume_hu[index].shape
    assert ax.get_xlim() == (-0.5, columns - 0.5)
    assert ax.get_ylim() == (rows - 0.5, -0.5)  # row 0, anterior or superior, at the top


def test_outlines_run_half_way_between_voxels(volume_hu, label):
    ax = outlined(volume_hu, 3, label)
    found = outlines(ax)
    # A rectangle of voxels loses 1/8 voxel at each of its four corners.
    assert enclosed_area(found["whole"][0]) == pytest.approx(6 * 8 - 0.5)
    assert enclosed_area(found["tumor"][0]) == pytest.approx(3 * 4 - 0.5)
    box = found["tumor"][0].get_paths()[0].get_extents()
    np.testing.assert_allclose([box.x0, box.x1, box.y0, box.y1], [4.5, 8.5, 5.5, 8.5])
    for region, (lines,) in found.items():
        assert same_color(lines.get_edgecolor()[0], plots.PALETTE[region])
    names = {text.get_text(): text.get_color() for text in ax.texts}
    assert names == {region: plots.PALETTE[region] for region in ("whole", "tumor")}


def test_outline_at_the_edge_is_closed(volume_hu):
    ax = outlined(volume_hu, 0, np.ones(SHAPE, np.uint8))
    assert enclosed_area(outlines(ax)["whole"][0]) == pytest.approx(20 * 30 - 0.5)


def test_prediction_is_dashed(volume_hu, label):
    predicted = np.roll(label, (1, 2), axis=(1, 2))
    ax = outlined(volume_hu, 3, label, predicted)
    solid, dashed = outlines(ax)["tumor"]
    assert solid.get_linestyle()[0][1] is None
    assert dashed.get_linestyle()[0][1] is not None
    assert dashed.get_paths()[0].get_extents().x0 == pytest.approx(6.5)
    (_, row) = positions(ax)["tumor"]
    assert 9.5 < row < 11  # one name, clear of both outlines
    key = [text.get_text() for text in ax.get_legend().get_texts()]
    assert key == ["truth", "predicted"]


def positions(ax):
    return {text.get_text(): text.get_position() for text in ax.texts}


def test_a_name_stands_elsewhere_than_on_another_region_or_out_of_the_image(volume_hu, label):
    predicted = label.copy()
    predicted[3, :8, 15:28] = 2  # at the upper edge
    column, row = positions(outlined(volume_hu, 3, label, predicted))["whole"]
    assert 3 <= column <= 11  # above the other kidney
    assert row < 3.5
    tall = np.zeros(SHAPE, np.uint8)
    tall[3, :, 3:11] = 1
    tall[3, 19, 3:11] = 2  # the name of the tumor has no place below
    places = positions(outlined(volume_hu, 3, tall))
    assert all(-0.5 < row < 19.5 for _, row in places.values())
    assert places["tumor"] != places["whole"]


@pytest.mark.parametrize(
    ("free", "x", "y"),
    [
        (np.s_[12:, :12], 0, 0), (np.s_[12:, 18:], 1, 0),
        (np.s_[:8, :12], 0, 1), (np.s_[:8, 18:], 1, 1),
    ],
)  # fmt: skip
def test_the_key_stands_where_it_hides_no_outline(volume_hu, free, x, y):
    everywhere = np.ones(SHAPE, np.uint8)
    everywhere[3][free] = 0
    ax = outlined(volume_hu, 3, everywhere, everywhere)
    ax.figure.draw_without_rendering()
    key = ax.get_legend().get_window_extent().transformed(ax.transAxes.inverted())
    assert abs(key.x0 + key.width / 2 - x) < 0.5 > abs(key.y0 + key.height / 2 - y)


def test_names_can_be_left_out(volume_hu, label):
    ax = outlined(volume_hu, 3, label, names=False)
    assert set(outlines(ax)) == {"whole", "tumor"}
    assert not ax.texts


def test_show_slice_draws_into_a_given_axes(volume_hu):
    figure = mpl.figure.Figure()
    ax = figure.subplots()
    assert plots.show_slice(volume_hu, 0, spacing_mm=SPACING_MM, ax=ax) is figure
    assert len(ax.images) == 1


def test_figure_5(volume_hu, label):
    result, lower = np.roll(label, -1, axis=1), np.roll(label, -1, axis=0)
    example = plots.Example(volume_hu, label, result, SPACING_MM, "case_00007", "DSC 0.5")
    other = plots.Example(volume_hu, lower, result, SPACING_MM)
    axes = plots.figure_5([example, other]).axes
    for ax, index in zip(axes, [3] * 3 + [2] * 3, strict=True):
        np.testing.assert_array_equal(shown(ax), volume_hu[index])
    assert [ax.get_title() for ax in axes[:3]] == ["CT", "ground truth", "result"]
    assert (axes[0].get_ylabel(), axes[2].get_xlabel()) == ("case_00007", "DSC 0.5")
    assert outlines(axes[0]) == {}
    tops = [outlines(ax)["tumor"][0].get_paths()[0].get_extents().y0 for ax in axes[1:3]]
    np.testing.assert_allclose(tops, [5.5, 4.5])


def test_figure_5_tints_do_not_mix(volume_hu, label):
    example = plots.Example(np.zeros_like(volume_hu), label, label, SPACING_MM)
    figure = plots.figure_5([example])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    ax = figure.axes[2]
    for region, (row, column) in {"whole": (4.7, 4), "tumor": (7, 7)}.items():
        x, y = ax.transData.transform((column, row))
        gray = np.round(255 * 160 / 400)  # 0 HU in the window
        tint = 0.6 * gray + 0.4 * 255 * np.array(to_rgb(plots.PALETTE[region]))
        np.testing.assert_allclose(pixels[-1 - int(y), int(x), :3], tint, atol=2)


def test_three_planes(volume_hu, label):
    figure = plots.three_planes(volume_hu, label, spacing_mm=SPACING_MM, position=(3, 7, 6))
    planes = dict(zip(("coronal", "sagittal", "axial"), figure.axes, strict=False))
    slices = (volume_hu[:, 7], volume_hu[:, :, 6], volume_hu[3])
    for (name, ax), expected, cross in zip(
        planes.items(), slices, ((3, 6), (3, 7), (7, 6)), strict=True
    ):
        assert ax.get_title().startswith(name)
        np.testing.assert_array_equal(shown(ax), expected)
        assert (ax.lines[0].get_ydata()[0], ax.lines[1].get_xdata()[0]) == cross
    letters = {name: "".join(t.get_text() for t in ax.texts) for name, ax in planes.items()}
    assert letters == {"axial": "APRL", "coronal": "SIRL", "sagittal": "SIAP"}
    texts = [text.get_text() for text in figure.axes[3].texts]
    assert texts[:2] == ["304 HU", "label 2: tumor"]


def test_three_planes_share_one_scale(volume_hu):
    figure = plots.three_planes(volume_hu, spacing_mm=SPACING_MM)
    FigureCanvasAgg(figure).draw()
    size_mm = np.multiply(SHAPE, SPACING_MM)
    scales = []
    for ax, (height, width) in zip(figure.axes, ((0, 2), (0, 1), (1, 2)), strict=False):
        box = ax.get_window_extent()
        scales += [box.height / size_mm[height], box.width / size_mm[width]]
    np.testing.assert_allclose(scales, scales[0], rtol=0.03)


def test_a_viewer_holds_ct_and_label_map_as_they_lie_in_the_patient(volume_hu, label):
    viewer = plots.three_plane_viewer(volume_hu, label, spacing_mm=SPACING_MM)
    assert isinstance(viewer, ipyniivue.NiiVue)
    assert viewer.opts.is_radiological_convention
    for volume, array in zip(viewer.volumes, (volume_hu, label), strict=True):
        image = nib.Nifti1Image.from_bytes(volume.data)
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)
        assert nib.aff2axcodes(image.affine) == ("I", "P", "L")
        assert image.header.get_zooms() == SPACING_MM
    colors = viewer.volumes[1].colormap_label
    assert list(colors.labels) == ["background", "kidney", "tumor"]
    shades = np.reshape(np.asarray(colors.lut), (-1, 4))[:, :3] / 255
    for number, region in ((1, "whole"), (2, "tumor")):
        assert same_color(tuple(shades[number]), plots.PALETTE[region])
    assert len(plots.three_plane_viewer(volume_hu, spacing_mm=SPACING_MM).volumes) == 1


def test_without_its_library_a_viewer_follows_sliders(volume_hu, label, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    viewer = plots.three_plane_viewer(volume_hu, label, spacing_mm=SPACING_MM)
    *sliders, image = viewer.children
    z, y, x = (slider.value for slider in sliders)
    assert z == 3
    assert label[z, y, x] == 2
    assert [slider.max for slider in sliders] == [5, 19, 29]
    for number, value in ((0, 1), (1, 12), (2, 25)):
        sliders[number].value = value
        position = tuple(slider.value for slider in sliders)
        expected = plots.three_planes(volume_hu, label, spacing_mm=SPACING_MM, position=position)
        assert position[number] == value
        assert image.value == png(expected)


def history(**change):
    columns = {
        "epoch": [1, 2, 3],
        "loss": [-0.5, -1.0, -1.5],
        "val_loss": [-0.4, -0.9, -0.8],
        "learning_rate": [1e-4, 1e-4, 2e-5],
    }
    return columns | change


def test_training_curves():
    upper, lower = plots.training_curves({"TuNet": history(), "L-Net": history()}).axes
    train, validation, best = upper.lines[:3]
    np.testing.assert_array_equal(train.get_ydata(), [-0.5, -1.0, -1.5])
    np.testing.assert_array_equal(validation.get_ydata(), [-0.4, -0.9, -0.8])
    assert best.get_xydata().tolist() == [[2, -0.9]]
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), [1e-4, 1e-4, 2e-5])
    heights = {text.get_text(): text.get_position()[1] for text in upper.texts}
    assert abs(heights["TuNet"] - heights["L-Net"]) >= 0.07  # equal curves, names still apart
    assert max(heights.values()) <= 1


def test_a_single_epoch_is_to_be_seen_and_none_is_refused():
    one = {name: column[:1] for name, column in history().items()}
    upper, lower = plots.training_curves({"TuNet": one}).axes
    assert [line.get_marker() for line in (*upper.lines, *lower.lines)] == [".", ".", "o", "."]
    with pytest.raises(ValueError, match="an epoch of each"):
        plots.training_curves({"TuNet": {name: [] for name in one}})


def test_no_two_of_ten_histories_look_alike():
    upper, _ = plots.training_curves({f"fold {fold}": history() for fold in range(10)}).axes
    looks = {(line.get_color(), line.get_linestyle()) for line in upper.lines[1::3]}
    assert len(looks) == 10


def test_the_largest_and_the_least_learning_rate_have_labels():
    def labels(*rates):
        _, lower = plots.training_curves({"a": history() | {"learning_rate": rates}}).axes
        lower.figure.canvas.draw()
        shown = lower.get_yticklabels(which="both")
        return [text.get_text() for text in shown if text.get_text()]

    assert labels(1e-3, 2e-3, 4e-4) == ["0.0004", "0.002"]
    assert labels(2e-3, 2e-3, 2e-3) == ["0.002"]
    assert labels("0.001", "0.002", "4e-4") == ["0.0004", "0.002"]  # as a CSV holds them
    assert labels(1e-4, 2e-5, 0.0) == ["2e-05", "0.0001"]  # a zero has no place on this axis


def test_table_1_plot():
    measured = {"whole": (0.8, 0.1), "tumor": (0.3, 0.2)}
    paper = {"whole": (0.857, 0.1), "tumor": (np.nan, np.nan)}
    rows = [
        SimpleNamespace(title=title, measured=measured, paper=paper)
        for title in ("TuNet", "Ensemble")
    ]
    figure = plots.table_1_plot(rows)
    whole, tumor = figure.axes
    measured, paper = whole.containers
    assert list(measured.lines[0].get_xdata()) == [0.8, 0.8]
    bar = measured.lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 0], [0.7, 0.9])
    assert list(paper.lines[0].get_xdata()) == [0.857, 0.857]
    assert np.isnan(np.asarray(tumor.containers[1].lines[0].get_xdata(), float)).all()
    assert [text.get_text() for text in whole.get_yticklabels()] == ["TuNet", "Ensemble"]


def test_figures_are_closed_and_settings_untouched(volume_hu):
    plt = importlib.import_module("matplotlib.pyplot")
    before = dict(mpl.rcParams)
    plots.show_slice(volume_hu, 0, spacing_mm=SPACING_MM)
    plots.training_curves({"a": history()})
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


CT = np.zeros(SHAPE, np.int16)
LABEL = np.zeros(SHAPE, np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.show_slice(CT, np.s_[:, :], spacing_mm=SPACING_MM), "no slice"),
        (lambda: plots.show_slice(CT, np.s_[..., 3], spacing_mm=SPACING_MM), "no slice"),
        (lambda: plots.show_slice(CT[0], 0, spacing_mm=SPACING_MM), r"of CT \(20, 30\)"),
        (lambda: plots.show_slice(CT, 0, spacing_mm=(1, 0, 1)), "three positive numbers"),
        (lambda: outlined(CT, 0, LABEL[:, 1:]), "differ in shape"),
        (lambda: plots.three_planes(CT, spacing_mm=SPACING_MM, position=(0, 20, 0)), "outside"),
        (lambda: plots.three_planes(CT, spacing_mm=SPACING_MM, position=(0, -1, 0)), "outside"),
        (lambda: plots.three_plane_viewer(CT, LABEL.T, spacing_mm=SPACING_MM), "differ in shape"),
        (lambda: plots.three_planes(CT, LABEL[1:], spacing_mm=SPACING_MM), "differ in shape"),
        (lambda: plots.figure_5([]), "at least one"),
        (lambda: plots.figure_5([plots.Example(CT, LABEL[1:], LABEL, SPACING_MM)]), "differ in"),
        (lambda: plots.training_curves({}), "at least one"),
        (lambda: plots.table_1_plot([]), "at least one"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_body_is_found_between_air_on_all_sides():
    image = np.full((20, 50), -1000.0)
    image[5:15, 10:40] = 40.0
    image[18, 30] = 40.0  # a speck of noise
    assert plots.body(image) == pytest.approx((4.2, 14.8, 8.6, 40.4))
    assert plots.body(np.full((4, 6), -1000.0)) == pytest.approx((-0.5, 3.5, -0.5, 5.5))


def test_figure_5_is_cut_to_the_body():
    volume_hu = np.full((3, 20, 50), -1000.0, np.float32)
    volume_hu[:, 5:15, 10:40] = 40.0
    label = np.zeros(volume_hu.shape, np.uint8)
    label[1, 8:10, 20:24] = 2
    example = plots.Example(volume_hu, label, label, (3.0, 1.0, 1.0))
    for ax in plots.figure_5([example]).axes:
        assert ax.get_xlim() == pytest.approx((8.6, 40.4))
        assert ax.get_ylim() == pytest.approx((14.8, 4.2))


def test_three_planes_are_cut_to_the_body():
    volume_hu = np.full((3, 20, 50), -1000.0, np.float32)
    volume_hu[1, 5:15, 10:40] = 40.0
    coronal, sagittal, axial, _ = plots.three_planes(volume_hu, spacing_mm=(3.0, 1.0, 1.0)).axes
    top_down, across = pytest.approx((14.8, 4.2)), pytest.approx((8.6, 40.4))
    assert (axial.get_ylim(), axial.get_xlim()) == (top_down, across)
    assert (coronal.get_ylim(), coronal.get_xlim()) == ((2.5, -0.5), across)
    assert (sagittal.get_ylim(), sagittal.get_xlim()) == ((2.5, -0.5), pytest.approx((4.2, 14.8)))
