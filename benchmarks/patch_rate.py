"""Training patches of 128x128x128 a second, rotated, from prepared cases: TorchIO's Queue."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.cases import full_size_case
from benchmarks.harness import Measured, compare
from tunet_lib.config import VARIANTS, Config
from tunet_lib.preprocess import prepare_cases

CONFIG = Config.preset("paper")
CASES, PATCHES = 4, 24
WORKERS = 2


def measure() -> list[Measured]:
    """Measure this row: 24 patches, six from each of four cases, by two workers."""
    import torch
    import torchio as tio

    from tunet_lib.patches import PatchDataset, as_sources

    folder = Path(tempfile.mkdtemp())
    case = full_size_case()
    cases = [type(case)(f"case_{k:05d}", case.image_path, case.label_path) for k in range(CASES)]
    prepared, failures = prepare_cases(cases, folder, CONFIG)
    assert not failures, failures
    sources = as_sources(prepared, VARIANTS["tunet"], CONFIG)

    def ours() -> int:
        dataset = PatchDataset(sources, VARIANTS["tunet"], CONFIG, seed=(0,), workers=WORKERS)
        dataset.items = dataset.items[:PATCHES]
        with ThreadPoolExecutor(WORKERS) as pool:  # as Keras does
            return sum(len(image) for image, _ in pool.map(dataset.__getitem__, range(PATCHES)))

    # TorchIO reads volumes from files of its own.
    for item in prepared:
        volume = np.asarray(item.volume(False), np.float32)[None]
        tio.ScalarImage(tensor=torch.from_numpy(volume)).save(item.folder / "volume.nii")
        label = torch.from_numpy(np.asarray(item.label()))[None]
        tio.LabelMap(tensor=label).save(item.folder / "label.nii")

    def with_torchio() -> int:
        rotate = tio.RandomAffine(
            scales=0, degrees=(-1, 1, 0, 0, 0, 0), default_pad_value="minimum"
        )
        subjects = [
            tio.Subject(
                volume=tio.ScalarImage(item.folder / "volume.nii"),
                label=tio.LabelMap(item.folder / "label.nii"),
            )
            for item in prepared
        ]
        queue = tio.Queue(
            tio.SubjectsDataset(subjects, transform=rotate),
            max_length=PATCHES,
            samples_per_volume=PATCHES // CASES,
            sampler=tio.UniformSampler(CONFIG.patch_shape),
            num_workers=WORKERS,
        )
        loader = tio.SubjectsLoader(queue, batch_size=1, num_workers=0)
        return sum(len(batch["volume"][tio.DATA]) for batch in loader)

    def agree(ours: int, theirs: int) -> str:
        assert ours == theirs == PATCHES, (ours, theirs)
        return f"{PATCHES} patches each"

    return compare("24 rotated patches 128x128x128", ours, {"TorchIO": (with_torchio, 3.0)}, agree)
