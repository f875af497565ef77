"""Damaged files by the hundred: each is taken, or refused by a DataError, and nothing else.

``python tests/faults/fuzz.py niftis 300``, ``… dicom 60`` and ``… side 300`` print what came of
them as JSON; ``make fuzz`` tries 10,000, 1,000 and 1,000. The helpers in ``tests`` must be on
PYTHONPATH. It is run in a process of its own, which may take 1 GB more than it has when it begins,
and whose standard error has to stay empty.
"""

import collections
import contextlib
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import mutate
import nibabel as nib
import numpy as np
from scans import SMALL, box_scan, save_untrained, scan_config, write_scans
from tiny import SCORE_ROWS

from tunet_lib.files import DataError, DataWarning, save_json

MOST_S = 2.0
MOST_BYTES = 2**30


class Tally:
    """What came of each file, its time and the memory at the end."""

    def __init__(self):
        self.counts = collections.Counter()
        self.other = []
        self.slowest_s = 0.0

    @contextlib.contextmanager
    def one(self, name, seed):
        start_s = time.process_time()
        try:
            with warnings.catch_warnings(record=True) as caught, silent() as said:
                warnings.simplefilter("always")
                yield
            strange = [w for w in caught if not issubclass(w.category, DataWarning)]
            if strange:
                self.note(name, seed, f"a warning: {strange[0].message}")
            elif any(said):
                self.note(name, seed, f"on stderr: {said[0][:300]}")
            else:
                self.counts["taken"] += 1
        except DataError:
            self.counts["refused"] += 1
        except BaseException as error:
            self.note(name, seed, "".join(traceback.format_exception(error)[-4:]))
        time_s = time.process_time() - start_s
        self.slowest_s = max(self.slowest_s, time_s)
        if time_s > MOST_S:
            self.note(name, seed, f"it took {time_s:.1f} s")

    def note(self, name, seed, what):
        self.counts["other"] += 1
        self.other.append(f"{name}, seed {seed}: {what}")


@contextlib.contextmanager
def silent():
    """Take down what is written to the standard error, also by libraries."""
    said = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as stream:
        os.dup2(stream.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            stream.seek(0)
            said.append(stream.read().decode(errors="replace"))


def limit_memory():
    """Let this process map 1 GB more than it has now: beyond that allocations fail."""
    if sys.platform != "linux":  # macOS limits no memory
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def niftis(count, folder, first=0):
    """Damage NIfTIs; what is taken must give finite voxels, a finite volume, and a label map."""
    from tunet_lib.preprocess import prepare_scan
    from tunet_lib.scans import load_label, open_scan, save_label
    from tunet_lib.upright import UprightFile
    from tunet_lib.volumes import volumes_ml

    volume_hu, label = box_scan(0)
    affine = np.array([[0, 0, -4.0, 9], [0, -4.0, 0, 5], [-4.0, 0, 0, 7], [0, 0, 0, 1]])
    good = {}
    for name, array in (
        ("ct.nii.gz", volume_hu),
        ("ct.nii", volume_hu.astype(np.float32)),
        ("byte.nii.gz", label),
        ("long.nii", volume_hu.astype(np.int32)),
    ):
        nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), folder / name)
        good[name] = (folder / name).read_bytes()
    nib.save(nib.Nifti1Image(label, affine), folder / "label.nii.gz")
    tally = Tally()
    for seed in range(first, first + count):
        rng = mutate.generator(7, seed)
        name = mutate.pick(rng, list(good))
        (folder / name).write_bytes(mutate.nifti(good[name], rng))
        with tally.one(name, seed):
            if name == "byte.nii.gz":
                load_label(folder / name)
                continue
            scan = open_scan(folder / name)
            prepared = prepare_scan(scan, SMALL)
            assert all(np.isfinite(volume).all() for volume in prepared.values())
            made = np.zeros(scan.shape, np.uint8)
            made[tuple(size // 2 for size in scan.shape)] = 1
            assert all(np.isfinite(ml) for ml in volumes_ml(made, scan).values())
            save_label(made, scan, folder / "made.nii.gz")
            back = load_label(folder / "made.nii.gz", scan)
            # What lies askew is resampled both ways, and a single voxel may fall between others.
            if isinstance(scan.file, UprightFile):
                assert back.shape == made.shape
            else:
                np.testing.assert_array_equal(back, made)
    return tally


def dicom_series():
    """Give one series in all ways in which its pixels may lie: the bytes of its files."""
    import dicoms
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLSLossless,
        RLELossless,
    )

    volume_hu, _ = box_scan(0)
    pixels = (volume_hu[::4] + 1024).astype(np.uint16)

    def content(data):
        stream = io.BytesIO()
        data.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    for syntax in ("", ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        slices = dicoms.series(len(pixels), pixels, step_mm=(0, 0, 16.0), PixelSpacing=[4.0, 4.0])
        for each in slices:
            each.file_meta.TransferSyntaxUID = syntax or each.file_meta.TransferSyntaxUID
        yield [content(each) for each in slices]
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        slices = dicoms.series(len(pixels), pixels, step_mm=(0, 0, 16.0), PixelSpacing=[4.0, 4.0])
        for each in slices:
            each.compress(syntax)
        yield [content(each) for each in slices]
    yield [content(dicoms.enhanced([2, 0, 1, 3]))]


def dicom(count, folder, first=0):
    """Damage one file of a folder of DICOM, or take one away, or put one there twice."""
    from tunet_lib.formats import check_label_name
    from tunet_lib.scans import load_label, load_scan, save_label
    from tunet_lib.volumes import volumes_ml

    kept = list(dicom_series())
    tally = Tally()
    limit_memory()
    for seed in range(first, first + count):
        rng = mutate.generator(9, seed)
        number = int(rng.integers(len(kept)))
        files = list(kept[number])
        which = int(rng.integers(len(files)))
        kind = rng.random()
        if kind < 0.03 and len(files) > 1:
            del files[which]
        elif kind < 0.06:
            files.append(files[which])
        else:
            files[which] = mutate.dicom(files[which], rng)
        ct = folder / "ct"
        shutil.rmtree(ct, ignore_errors=True)
        ct.mkdir()
        for k, content in enumerate(files):
            (ct / f"IM{k}").write_bytes(content)
        with tally.one(f"series {number}, file {which}", seed):
            scan = load_scan(ct)
            assert np.isfinite(scan.volume_hu).all()
            made = np.zeros(scan.shape, np.uint8)
            made[tuple(size // 2 for size in scan.shape)] = 1
            assert all(np.isfinite(ml) for ml in volumes_ml(made, scan).values())
            save_label(made, scan, folder / "made.nii.gz")
            assert load_label(folder / "made.nii.gz", scan).shape == made.shape
            check_label_name(folder / "made.dcm", scan.file)
    return tally


def make_run(folder):
    """Make a run with all files that ever lie in one: two networks, a log, scores, times."""
    from tunet_lib.evaluation import write_scores
    from tunet_lib.folds import Split
    from tunet_lib.history import write_history
    from tunet_lib.owner import take_over
    from tunet_lib.provenance import timed, write_provenance
    from tunet_lib.runs import prepare_run
    from tunet_lib.training import Training

    warnings.simplefilter("ignore", DataWarning)
    write_scans(folder / "data")
    config = scan_config(levels=1)
    listing = [{"case_id": f"case_0000{k}", "synthetic": True} for k in range(4)]
    save_json(folder / "data" / "kits.json", listing)
    run, _ = prepare_run(folder / "data", folder / "run", config)
    save_untrained(run, ("unet2d",))
    variant = run.model_folder(("unet2d", 0)).variant()
    cases = run.cases()
    training = Training(variant, config, Split(0, cases[:2], cases[2:]))
    training.run_epoch()
    for fold in range(2):
        model = run.model_folder(("unet2d", fold))
        model.note_code()
        write_history(model.history_path, training.schedule.history)
    model = run.model_folder(("unet2d", 0))
    training.save(model.checkpoint)
    take_over(model.path)
    write_scores(run.folder / "scores.csv", SCORE_ROWS)
    with timed(run.folder, "train"):
        pass
    write_provenance(run)
    return run, training


def read_all(run_folder, training):
    """Read a run folder as the steps of a study do, and what they give must be sound."""
    from tunet_lib.check import check_folder
    from tunet_lib.evaluation import read_scores
    from tunet_lib.model import Model
    from tunet_lib.owner import read_owner
    from tunet_lib.phantom import write_phantoms
    from tunet_lib.provenance import write_provenance
    from tunet_lib.runs import open_run
    from tunet_lib.scoring import FoldScores
    from tunet_lib.table import table_1

    run = open_run(run_folder)
    for case in run.cases():
        assert case.volume(False).shape == case.label().shape
    for row in table_1(read_scores(run.folder / "scores.csv")):
        assert not any(np.isinf(number) for number in row.numbers().values())
    model = run.model_folder(("unet2d", 0))
    read_owner(model.path)
    training.restore(model.checkpoint)
    loaded = Model.load(model.path, network=training.network)
    assert all(np.isfinite(array).all() for array in loaded.network.get_weights())
    model.note_cases(run.folds[1])
    FoldScores(run, 0, 1)
    write_provenance(run)
    check_folder(run_folder.parent / "data")
    with contextlib.suppress(DataError):  # these are no phantoms, whatever their listing says
        write_phantoms(run_folder.parent / "data", 1)


def side(count, folder, first=0):
    """Damage one file of a run after another."""
    run, training = make_run(folder)
    read_all(run.folder, training)
    files = sorted(
        path
        for path in (*run.folder.rglob("*"), folder / "data" / "kits.json")
        if path.is_file() and "fold_1" not in path.parts
    )
    kept = {path: path.read_bytes() for path in files}
    # As many of each kind of file as of any other.
    kinds = collections.defaultdict(list)
    for path in files:  # the name of a note of times has the number of a process in it
        kinds["times" if path.parent.name == "times" else path.name].append(path)
    tally = Tally()
    limit_memory()
    for seed in range(first, first + count):
        rng = mutate.generator(8, seed)
        path = mutate.pick(rng, kinds[mutate.pick(rng, sorted(kinds))])
        path.write_bytes(mutate.damaged(path.name, kept[path], rng))
        with tally.one(path.relative_to(folder), seed):
            read_all(run.folder, training)
        for each, content in kept.items():  # some are written as they are read
            if each.read_bytes() != content:
                each.write_bytes(content)
        assert {p for p in folder.rglob("*") if p.is_file()} >= set(kept)
    assert not Path("/tmp/escape").exists()
    return tally


def main(what, count, first="0"):
    folder = Path(tempfile.mkdtemp())
    try:
        if what == "niftis":
            limit_memory()
        tally = {"niftis": niftis, "dicom": dicom, "side": side}[what](
            int(count), folder, int(first)
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    unit = 1024 if sys.platform == "linux" else 1024**2  # on macOS it is bytes
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    kinds = {name: tally.counts[name] for name in ("taken", "refused", "other")}
    figures = {"slowest_s": round(tally.slowest_s, 2), "memory_mb": memory_mb}
    print(json.dumps({**kinds, **figures, "what": tally.other[:40]}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
