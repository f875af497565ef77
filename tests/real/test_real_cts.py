"""Two real CTs of different orientation, predicted by the command."""

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from typer.testing import CliRunner

from tunet_lib.cli import app
from tunet_lib.config import VARIANTS, Config
from tunet_lib.predict import WIDE_WEIGHTS

LARGE, SMALL = "abdomen_contrast_512.nii.gz", "totalsegmentator_example_ct.nii.gz"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Use the default weights; in a checkout without them, untrained networks."""
    if any(WIDE_WEIGHTS.rglob("model.weights.h5")):
        return []
    from tunet_lib.model import Model

    folder, config = tmp_path_factory.mktemp("untrained"), Config.preset("course")
    for name in ("tunet", "tunet_median", "lnet"):
        Model.untrained(VARIANTS[name], config).save(folder / name)
    return ["--models", str(folder)]


def predict(ct, output, options):
    result = CliRunner().invoke(app, ["predict", str(ct), "-o", str(output), *options])
    assert result.exit_code == 0, result.output
    return nib.load(output)


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [(SMALL, "RAS", ("LPS", "PIR")), (LARGE, "LPS", ("SAR",))],
    ids=["3 mm", "512x512"],
)
def test_every_orientation_gives_the_same_label_map(
    real, tmp_path, options, report, name, own, others
):
    image = nib.load(real / "ct" / name)
    assert "".join(nib.aff2axcodes(image.affine)) == own
    label = predict(real / "ct" / name, tmp_path / "label.nii.gz", options)
    assert label.shape == image.shape
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-3)
    values = np.asarray(label.dataobj)
    counts = np.bincount(values.ravel(), minlength=3)
    voxel_ml = np.prod(image.header.get_zooms()) / 1000
    report(f"{name}: kidney {counts[1] * voxel_ml:.0f} ml, tumor {counts[2] * voxel_ml:.0f} ml")
    assert np.count_nonzero(counts) > 1, "a constant map would prove nothing"
    for axes in others:
        turn = orientations.ornt_transform(
            orientations.io_orientation(image.affine), orientations.axcodes2ornt(axes)
        )
        image.as_reoriented(turn).to_filename(tmp_path / f"{axes}.nii.gz")
        turned = predict(tmp_path / f"{axes}.nii.gz", tmp_path / f"{axes}_label.nii.gz", options)
        expected = label.as_reoriented(turn)
        assert "".join(nib.aff2axcodes(turned.affine)) == axes
        assert turned.shape == expected.shape
        np.testing.assert_allclose(turned.affine, expected.affine, atol=1e-3)
        np.testing.assert_array_equal(np.asarray(turned.dataobj), np.asarray(expected.dataobj))
