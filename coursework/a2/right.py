"""Three whole papers for A2, each written in another way. All of them have to earn every point."""

# %% plain
import itertools
import math

import numpy as np


def window_starts(shape, window, overlap):
    def along(n, w, o):
        if n <= w:
            return [0]
        count = 1
        while (count - 1) * (w - o) < n - w:
            count += 1
        return [(i * (n - w)) // (count - 1) for i in range(count)]

    return list(itertools.product(*[along(*three) for three in zip(shape, window, overlap)]))


def center_probabilities(label, fraction):
    n, tumor = label.size, int(np.sum(label == 2))
    result = np.zeros(label.shape)
    for voxel, value in np.ndenumerate(label):
        if tumor in (0, n):
            result[voxel] = 1 / n
        elif value == 2:
            result[voxel] = fraction / tumor
        else:
            result[voxel] = (1 - fraction) / (n - tumor)
    return result


def deal(patients, folds):
    names = sorted(set(patients.values()))
    names.sort(key=lambda name: sum(p == name for p in patients.values()), reverse=True)
    dealt = [set() for _ in range(folds)]
    for name in names:
        best = 0
        for k in range(folds):
            if len(dealt[k]) < len(dealt[best]):
                best = k
        dealt[best] |= {scan for scan in patients if patients[scan] == name}
    return [sorted(d) for d in dealt]


def leaks(folds, patients):
    scans, people, seen = set(), set(), set()
    for a, b in itertools.combinations(folds, 2):
        scans |= set(a) & set(b)
        people |= {patients[s] for s in a} & {patients[s] for s in b}
    for fold in folds:
        seen.update(fold)
    missing = [s for s in patients if s not in seen]
    return {"patients": sorted(people), "scans": sorted(scans), "missing": sorted(missing)}


# %% arrays
import numpy as np


def window_starts(shape, window, overlap):
    shape, window, overlap = map(np.array, (shape, window, overlap))
    room = np.maximum(shape - window, 0)
    steps = np.ceil(room / (window - overlap)).astype(int)
    starts = []
    for index in np.ndindex(*(steps + 1)):
        starts.append(tuple(int(i * r // max(s, 1)) for i, r, s in zip(index, room, steps)))
    return starts


def center_probabilities(label, fraction):
    tumor = (label == 2).astype(float)
    other = 1 - tumor
    if tumor.any() and other.any():
        return fraction * tumor / tumor.sum() + (1 - fraction) * other / other.sum()
    return np.ones_like(tumor) / tumor.size


def deal(patients, folds):
    names, counts = np.unique(list(patients.values()), return_counts=True)
    sizes, fold_of = np.zeros(folds), {}
    for n in np.lexsort((names, -counts)):
        fold_of[names[n]] = fold = int(np.argmin(sizes))
        sizes[fold] += counts[n]
    dealt = [[] for _ in range(folds)]
    for scan in sorted(patients):
        dealt[fold_of[patients[scan]]].append(scan)
    return dealt


def leaks(folds, patients):
    scans, people = sorted(patients), sorted(set(patients.values()))
    there = np.array([[scan in fold for scan in scans] for fold in folds])
    who = np.array([[any(patients[s] == p for s in fold) for p in people] for fold in folds])
    return {
        "patients": [p for p, n in zip(people, who.sum(0)) if n > 1],
        "scans": [s for s, n in zip(scans, there.sum(0)) if n > 1],
        "missing": [s for s, n in zip(scans, there.sum(0)) if n == 0],
    }


# %% recursion
from collections import defaultdict

import numpy as np


def window_starts(shape, window, overlap):
    if not shape:
        return [()]
    n, w, o = shape[0], window[0], overlap[0]
    k = 1 if w >= n else 1 + (n - w + w - o - 1) // (w - o)
    own = [0] if k == 1 else [int(i * (n - w) / (k - 1)) for i in range(k)]
    rest = window_starts(shape[1:], window[1:], overlap[1:])
    return [(start, *more) for start in own for more in rest]


def center_probabilities(label, fraction):
    is_tumor = (label.ravel() == 2).astype(int)
    counts = np.bincount(is_tumor, minlength=2)
    each = np.array([1 - fraction, fraction]) / np.maximum(counts, 1)
    if 0 in counts:
        each = np.array([1, 1]) / label.size
    return each[is_tumor].reshape(label.shape)


def deal(patients, folds):
    groups = defaultdict(list)
    for scan in sorted(patients):
        groups[patients[scan]].append(scan)
    dealt = {k: [] for k in range(folds)}
    while groups:
        name = min(groups, key=lambda g: (-len(groups[g]), g))
        smallest = min(dealt, key=lambda k: (len(dealt[k]), k))
        dealt[smallest] += groups.pop(name)
    return [sorted(dealt[k]) for k in range(folds)]


def leaks(folds, patients):
    def in_several(sets):
        every = [item for one in sets for item in one]
        return sorted({item for item in every if every.count(item) > 1})

    placed = {scan for fold in folds for scan in fold}
    return {
        "scans": in_several([set(fold) for fold in folds]),
        "patients": in_several([{patients[scan] for scan in fold} for fold in folds]),
        "missing": sorted(patients.keys() - placed),
    }
