"""Data folders as people have them: KiTS19, KiTS21, KiTS23, and nnU-Net's raw data sets.

What a folder holds and is not used is listed with its reason, so that nothing vanishes unsaid.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunet_lib.files import DataError, listed, load_json
from tunet_lib.formats import SECOND_OF_PAIR, suffix_of
from tunet_lib.kits19 import IMAGE_NAME, LABEL_NAME, Case, find_cases

CASE_FOLDER = r"case_\d{5}"
ROOTS = ("", "dataset", "data", "kits21/data", "kits19/data", "kits23/dataset")
LABEL_NAMES = (LABEL_NAME, "aggregated_MAJ_seg.nii.gz")  # the latter in KiTS21
EXPECTED = (r"kits\d*\.json", r"surgery\.json", r"LICENSE.*", r"README.*", r"\..*")
CHANNEL = re.compile(r"(.+)_(\d{4})")
LABEL_VALUES = {"tumor": 2, "tumour": 2, "kidney": 1}  # the first that is in a name counts


@dataclass(frozen=True)
class Data:
    """What a data folder holds.

    Attributes
    ----------
    folder
        Where the cases lie, which may be below the folder that was given.
    cases
        Sorted by case_id.
    unused
        Reason → names, of what is there and will not be used.
    """

    folder: Path
    cases: list[Case]
    unused: dict[str, list[str]]

    def sentences(self, shown: int = 5) -> Iterator[str]:
        """Say what is not used, a sentence for each reason, with the first few names."""
        for reason, names in self.unused.items():
            yield f"not used: {listed(names, shown)}: {reason}"


def find_data(folder: str | Path, *, cyst_as_kidney: bool = False) -> Data:
    """Find the cases of a data folder, in whichever layout it is.

    Parameters
    ----------
    folder
        Holds ``case_00000/…``, or ``dataset/case_00000/…``, or ``imagesTr`` and ``labelsTr``.
    cyst_as_kidney
        Whether label maps may hold 3, cyst, which counts as kidney.

    Raises
    ------
    DataError
        The folder is missing or unreadable, holds no case, or names its labels otherwise.
    """
    folder = Path(folder)
    try:
        data = _kits_data(folder) or _nnunet_data(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    if data is None:
        find_cases(folder)  # says what is missing
        raise DataError(f"{folder}: holds no case")
    if cyst_as_kidney:
        cases = [
            Case(case.case_id, case.image_path, case.label_path, cyst_as_kidney=True)
            for case in data.cases
        ]
        data = Data(data.folder, cases, data.unused)
    return data


def _kits_data(folder: Path) -> Data | None:
    for root in (folder / name for name in ROOTS):
        if root.is_dir() and any(re.fullmatch(CASE_FOLDER, path.name) for path in root.iterdir()):
            break
    else:
        return None
    cases, unused = [], defaultdict(list)
    for path in sorted(root.iterdir()):
        if not (re.fullmatch(CASE_FOLDER, path.name) and path.is_dir()):
            if not _is_expected(path.name):
                unused["is no folder named case_ and five digits"].append(path.name)
            continue
        if not os.access(path, os.R_OK | os.X_OK):
            # It is a case all the same, and whoever opens its files says what is wrong.
            cases.append(Case(path.name, path / IMAGE_NAME, path / LABEL_NAME))
            continue
        image = path / IMAGE_NAME
        label = next((path / name for name in LABEL_NAMES if (path / name).is_file()), None)
        case = Case(path.name, image if image.is_file() else None, label)
        _note_case(case, unused)
        if case.image_path or case.label_path:
            cases.append(case)
        for each in sorted(path.iterdir()):
            if each not in (image, label) and not _is_expected(each.name):
                names = f"{IMAGE_NAME} or {LABEL_NAME}"
                unused[f"is not named {names}"].append(f"{path.name}/{each.name}")
    return Data(root, cases, dict(unused)) if cases else None


def _nnunet_data(folder: Path) -> Data | None:
    found = [folder] if (folder / "imagesTr").is_dir() else []
    if not found and folder.is_dir():
        found = sorted(path.parent for path in folder.glob("*/imagesTr") if path.is_dir())
    if not found:
        return None
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{folder}: holds several data sets ({names}); name one of them")
    root = found[0]
    if (root / "dataset.json").exists():
        _check_description(root / "dataset.json", load_json(root / "dataset.json"))
    unused: dict[str, list[str]] = defaultdict(list)
    images: dict[str, Path] = {}
    for path in _images_in(root / "imagesTr", unused):
        match = CHANNEL.fullmatch(_stem(path))
        if match is None:
            unused["lacks the channel, _0000, in its name"].append(_below(root, path))
        elif match[2] != "0000":
            unused["is another channel than the first"].append(_below(root, path))
        else:
            _keep(images, match[1], path)
    labels: dict[str, Path] = {}
    for path in _images_in(root / "labelsTr", unused):
        _keep(labels, _stem(path), path)
    cases = [Case(i, images.get(i), labels.get(i)) for i in sorted({*images, *labels})]
    for case in cases:
        _note_case(case, unused)
    for name in ("imagesTs", "labelsTs"):
        if (root / name).is_dir():
            unused["is the test set"].append(name)
    return Data(root, cases, dict(unused)) if cases else None


def _keep(found: dict[str, Path], case_id: str, path: Path) -> None:
    other = found.setdefault(case_id, path)
    if other != path:
        raise DataError(f"{path}: {case_id} is also in {other.name}; leave one of them")


def _images_in(folder: Path, unused: dict[str, list[str]]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if suffix_of(path) in SECOND_OF_PAIR:  # its header stands for both
            continue
        if suffix_of(path) and path.is_file() and not path.name.startswith("."):
            yield path
        elif not _is_expected(path.name):
            unused["is no image"].append(_below(folder.parent, path))


def _check_description(path: Path, description: Any) -> None:
    """Make sure that the labels and the first channel are what they are here."""
    description = description if isinstance(description, dict) else {}
    labels = description.get("labels")
    for name, value in (labels if isinstance(labels, dict) else {}).items():
        if str(name).isdigit():  # as the Medical Segmentation Decathlon writes it
            name, value = str(value), int(name)
        expected = _expected_label(str(name).lower())
        # A list is a region of several labels. Some programs write 1.0 or "1".
        is_same = isinstance(value, list) or str(value).removesuffix(".0") == str(expected)
        if expected is not None and not is_same:
            raise DataError(f"{path}: gives {name} the label {value}, expected {expected}; recode")
    channels = description.get("channel_names") or description.get("modality")
    first = channels.get("0") if isinstance(channels, dict) else None
    if isinstance(first, str) and "CT" not in first.upper():
        raise DataError(f"{path}: its first channel is {first}, expected CT")


def _expected_label(name: str) -> int | None:
    """Give the label of what has a name such as ``"left kidney"`` or ``"Tumour"``."""
    if "cyst" in name:
        return None  # what it counts as is for the user to say
    return next((LABEL_VALUES[each] for each in LABEL_VALUES if each in name), None)


def _note_case(case: Case, unused: dict[str, list[str]]) -> None:
    if not (case.image_path or case.label_path):
        unused["holds neither CT nor label map"].append(case.case_id)
    elif not case.image_path:
        unused["has no CT"].append(case.case_id)
    elif not case.label_path:
        unused["has no label map, and training needs one"].append(case.case_id)


def _is_expected(name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in EXPECTED)


def _stem(path: Path) -> str:
    stem = path.name[: len(path.name) - len(suffix_of(path))]
    return unicodedata.normalize("NFC", stem)  # some programs write an accent apart


def _below(root: Path, path: Path) -> str:
    return str(path.relative_to(root))
