"""A2: its questions, the right answers, and how secret cases are drawn."""

import math
from collections import Counter
from itertools import product

import numpy as np

from coursework.task import Part, Question, Task


def window_starts(shape, window, overlap):
    """Spread windows along each axis, by the formula of the text."""

    def axis(n, w, o):
        if w >= n:
            return [0]
        k = math.ceil((n - w) / (w - o)) + 1
        return [math.floor(i * (n - w) / (k - 1)) for i in range(k)]

    return [list(start) for start in product(*map(axis, shape, window, overlap))]


def center_probabilities(label, fraction):
    """Fill in two numbers."""
    tumor, rest = (label == 2).sum(), (label != 2).sum()
    if not tumor or not rest:
        return np.ones(label.shape) / label.size
    probabilities = np.empty(label.shape)
    probabilities[label == 2] = fraction / tumor
    probabilities[label != 2] = (1 - fraction) / rest
    return probabilities


def deal(patients, folds):
    """Deal by the rule, with a table of sizes."""
    counts = Counter(patients.values())
    sizes, home = [0] * folds, {}
    for patient, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        home[patient] = sizes.index(min(sizes))
        sizes[home[patient]] += count
    return [sorted(s for s, p in patients.items() if home[p] == fold) for fold in range(folds)]


def leaks(folds, patients):
    """Count in how many folds each is."""
    scans = Counter(scan for fold in folds for scan in set(fold))
    people = Counter(p for fold in folds for p in {patients[scan] for scan in fold})
    return {
        "patients": sorted(p for p, count in people.items() if count > 1),
        "scans": sorted(s for s, count in scans.items() if count > 1),
        "missing": sorted(s for s in patients if not scans[s]),
    }


def _windows(rng, count=5, low=1, high=4):
    cases = []
    for _ in range(count):
        window = rng.integers(4, 9, 3)
        overlap = rng.integers(0, 3, 3)
        shape = window + rng.integers(low, 12, 3) * rng.integers(1, high, 3)
        cases.append(tuple([int(n) for n in a] for a in (shape, window, overlap)))
    return cases


def _one_axis(rng):
    return [([1, 1, int(n)], [1, 1, 4], [0, 0, 1]) for n in rng.permutation(range(5, 17))[:5]]


def _exact(rng):
    o = int(rng.integers(1, 4))
    return [([4, 4, 4 + k * (4 - o)], [4, 4, 4], [0, 1, o]) for k in (1, 2, 3, 5)]


def _large(rng):
    a, b = (int(n) for n in rng.integers(1, 5, 2))
    return [([4, 9, b], [4 + a, 9, b + 3], [1, 2, 0]), ([8, 4 + a, 20], [9, 9, 6], [0, 0, 2])]


def _label(rng, share):
    return rng.choice([0, 1, 2], (3, 4, 5), p=[0.9 - share, 0.1, share]).astype(np.uint8)


def _labels(rng):
    labels = [_label(rng, share) for share in (0.1, 0.3, 0.6)]
    for label in labels:
        label.flat[:3] = 0, 1, 2
    return [(label, float(rng.uniform(0.1, 0.9))) for label in labels]


def _edges(rng):
    return [(label, f) for label, _ in _labels(rng)[:2] for f in (0.0, 1.0)]


def _one_kind(rng):
    kidney = rng.integers(0, 2, (2, 3, 4)).astype(np.uint8)
    # Kidney is something else than tumor, also where there is no background.
    both = rng.permutation(np.arange(24) % 3 % 2 + 1).reshape(2, 3, 4).astype(np.uint8)
    alike = [(kidney, 0.4), (np.full((2, 3, 2), 2, np.uint8), 0.7), (kidney, 0.0)]
    return [*alike, (both, float(rng.uniform(0.5, 0.9)))]


def _patients(rng, scans, people):
    names = [f"scan_{n:03d}" for n in rng.permutation(500)[:scans]]
    who = rng.choice([f"p{n:02d}" for n in rng.permutation(99)[:people]], scans)
    return {name: str(patient) for name, patient in zip(names, who, strict=True)}


def _single(rng):
    cases = []
    for folds in (2, 3, 5):
        names = rng.permutation(400)[:11]
        cases.append(({f"scan_{n:03d}": f"p{400 - n:03d}" for n in names}, folds))
    return cases


def _grouped(rng):
    sizes = [(_patients(rng, 24, 9), 4), (_patients(rng, 30, 14), 5), (_patients(rng, 17, 5), 3)]
    return [*sizes, (_patients(rng, 26, 12), 4), (_patients(rng, 21, 10), 3)]


def _few(rng):
    return [(_patients(rng, 6, 3), 5), (_patients(rng, 4, 1), 3)]


def _clean(rng):
    patients = _patients(rng, 16, 7)
    return [(deal(patients, 4), patients)]


def _leak_everywhere(folds, patients, rng):
    """Leak in each way at once: what is found of one kind is no reason not to look for others."""
    (moving, _), *others = Counter(patients.values()).most_common()
    several, gone = (others[i][0] for i in rng.permutation(len(others))[:2])

    def home(patient):
        return next(n for n, fold in enumerate(folds) for s in fold if patients[s] == patient)

    def of(patient):
        return next(scan for scan in folds[home(patient)] if patients[scan] == patient)

    # Two folds away, and so in no neighbor of its own.
    away, scan = (home(moving) + 2) % 4, of(moving)
    folds[home(moving)].remove(scan)
    folds[away].append(scan)
    there, scan = home(several), of(several)
    for n in rng.permutation([n for n in range(4) if n != there])[:2]:
        folds[n].append(scan)
    folds[home(gone)].remove(of(gone))


def _with_leaks(kinds):
    def draw(rng):
        cases = []
        for kind in kinds:
            patients = _patients(rng, 22, 9)
            folds = deal(patients, 4)
            from_, to = (int(n) for n in rng.permutation(4)[:2])
            if kind == "patient":
                fold = next(f for f in folds if len(f) > len({patients[s] for s in f}))
                many = Counter(patients[s] for s in fold).most_common(1)[0][0]
                moved = next(s for s in fold if patients[s] == many)
                fold.remove(moved)
                folds[(folds.index(fold) + 1) % 4].append(moved)
            elif kind == "all":
                _leak_everywhere(folds, patients, rng)
            elif kind == "scan":
                folds[to].append(folds[from_][0])
            elif kind == "missing":
                del folds[from_][0], folds[to][-1]
            elif kind in ("twice", "twice and a leak"):
                folds[to].append(folds[to][0])
                if kind != "twice":
                    folds[from_].append(folds[to][-2])
            cases.append(([list(map(str, rng.permutation(f))) for f in folds], patients))
        return cases

    return draw


TASK = Task(
    name="a2",
    title="Patches and folds",
    written="q5",
    written_points=4,
    questions=(
        Question(
            "q1",
            "window_starts",
            window_starts,
            (
                Part(1, "along one axis", "The last window ends at the border.", _one_axis, True),
                Part(2, "three axes", "x is fastest, then y.", _windows),
                Part(2, "windows that fit exactly", "Round up, but not what is whole.", _exact),
                Part(1, "windows as large as the volume", "Then there is one, at 0.", _large),
            ),
        ),
        Question(
            "q2",
            "center_probabilities",
            center_probabilities,
            (
                Part(2, "tumor and others", "Divide each share by its voxels.", _labels, True),
                Part(1, "fractions of 0 and 1", "The same formula holds.", _edges),
                Part(1, "no tumor, or nothing else", "All voxels alike; sum 1.", _one_kind),
            ),
            tolerance=1e-9,
        ),
        Question(
            "q3",
            "deal",
            deal,
            (
                Part(
                    1, "a scan a patient", "In alphabetical order of the patients.", _single, True
                ),
                Part(3, "several scans a patient", "Count scans, not patients.", _grouped),
                Part(1, "fewer patients than folds", "Some folds stay empty.", _few),
            ),
        ),
        Question(
            "q4",
            "leaks",
            leaks,
            (
                Part(1, "a clean deal", "Three empty lists.", _clean, True),
                Part(
                    1,
                    "patients in two folds",
                    "Look a scan's patient up.",
                    _with_leaks(["patient", "patient"]),
                    True,
                ),
                Part(
                    1,
                    "scans in two folds",
                    "So is their patient. And a scan can be in more than two.",
                    _with_leaks(["scan"] * 3 + ["all"]),
                ),
                Part(
                    1,
                    "missing scans",
                    "`patients` names all, whatever else is found.",
                    _with_leaks(["missing"] * 2 + ["all"]),
                ),
                Part(
                    1,
                    "twice in a fold",
                    "That is no leak.",
                    _with_leaks(["twice"] * 2 + ["twice and a leak"]),
                ),
            ),
        ),
    ),
)
