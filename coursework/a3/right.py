"""Three whole papers for A3, each written in another way. All of them have to earn every point."""

# %% plain
import math

import numpy as np


def scores(predicted, truth, empty):
    found = {}
    for name, least in (("whole", 1), ("tumor", 2)):
        both = either = 0
        for p, t in zip(predicted.ravel(), truth.ravel()):
            both += 2 * (p >= least and t >= least)
            either += int(p >= least) + int(t >= least)
        found[name] = both / either if either > 0 else empty
    found["mean"] = sum(found.values()) / 2
    return found


def dice_loss(prob, truth, together, s):
    if together:  # a batch is one long patch
        prob = prob.reshape(1, -1, 1, 1, prob.shape[-1])
        truth = truth.reshape(prob.shape)
    loss = 0
    for p, t in zip(prob, truth):
        for c in range(p.shape[-1]):
            a, b = p[..., c], t[..., c]
            loss -= (2 * np.sum(a * b) + s) / (np.sum(a) + np.sum(b) + s)
    return loss / len(prob)


def half_dice(prob, truth):
    above = below = 0.0
    for p, t in zip(prob.tolist(), truth.tolist()):
        above += 2 * p * t
        below += p + t
    return above / below if below else 1


def hd95(a, b, spacing_mm):
    def surface(mask):
        voxels = {tuple(v) for v in np.argwhere(mask).tolist()}
        steps = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (0, -1, 0), (0, 0, -1)]
        outer = []
        for z, y, x in voxels:
            if any((z + i, y + j, x + k) not in voxels for i, j, k in steps):
                outer.append((z * spacing_mm[0], y * spacing_mm[1], x * spacing_mm[2]))
        return outer

    one, two = surface(a), surface(b)
    if not one and not two:
        return math.nan
    if not one or not two:
        return math.inf
    there = [min(math.dist(p, q) for q in two) for p in one]
    back = [min(math.dist(p, q) for q in one) for p in two]
    return max(np.percentile(there, 95), np.percentile(back, 95))


# %% einsum
import numpy as np
from scipy import ndimage


def scores(predicted, truth, empty):
    p = np.stack([predicted > 0, predicted > 1]).reshape(2, -1).astype(int)
    t = np.stack([truth > 0, truth > 1]).reshape(2, -1).astype(int)
    both, total = np.einsum("cv,cv->c", p, t), p.sum(1) + t.sum(1)
    dsc = np.where(total > 0, 2 * both / np.maximum(total, 1), empty)
    return {"whole": dsc[0], "tumor": dsc[1], "mean": dsc.mean()}


def dice_loss(prob, truth, together, s):
    both = np.einsum("bzyxc,bzyxc->bc", prob, truth)
    total = np.einsum("bzyxc->bc", prob + truth)
    if together:
        both, total = both.sum(0, keepdims=True), total.sum(0, keepdims=True)
    return np.sum(np.mean((-2 * both - s) / (total + s), axis=0))


def half_dice(prob, truth):
    prob, truth = np.float64(prob), np.float64(truth)
    if not (prob.any() or truth.any()):
        return 1.0
    return 2 * np.dot(prob, truth) / np.add(prob, truth).sum()


def hd95(a, b, spacing_mm):
    if a.any() != b.any():
        return np.inf
    if not a.any():
        return np.nan
    cross = ndimage.generate_binary_structure(3, 1)
    surfaces = [m ^ ndimage.binary_erosion(m, cross, border_value=0) for m in (a, b)]
    values = []
    for mine, other in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~other, sampling=spacing_mm)
        values.append(np.percentile(distance[mine], 95))
    return max(values)


# %% sets
import numpy as np
from scipy.spatial.distance import cdist


def scores(predicted, truth, empty):
    def dsc(labels):
        p = set(np.flatnonzero(np.isin(predicted, labels)).tolist())
        t = set(np.flatnonzero(np.isin(truth, labels)).tolist())
        return 2 * len(p & t) / (len(p) + len(t)) if p or t else empty

    w, t = dsc([1, 2]), dsc([2])
    return dict(whole=w, tumor=t, mean=(w + t) * 0.5)


def dice_loss(prob, truth, together, s):
    def fraction(p, t):
        p, t = p.reshape(-1, p.shape[-1]), t.reshape(-1, t.shape[-1])
        return (2 * (p * t).sum(0) + s) / (p.sum(0) + t.sum(0) + s)

    if together:
        return -fraction(prob, truth).sum()
    return -np.mean([fraction(p, t).sum() for p, t in zip(prob, truth)])


def half_dice(prob, truth):
    single = prob.astype("f4"), truth.astype("f4")
    below = np.sum(single, dtype="f8")
    return 1.0 if below == 0 else 2 * np.sum(single[0] * single[1], dtype="f8") / below


def hd95(a, b, spacing_mm):
    def shell(mask):
        p = np.pad(mask, 1)
        full = p[:-2, 1:-1, 1:-1] & p[2:, 1:-1, 1:-1] & p[1:-1, :-2, 1:-1]
        full &= p[1:-1, 2:, 1:-1] & p[1:-1, 1:-1, :-2] & p[1:-1, 1:-1, 2:]
        return np.stack(np.nonzero(mask & ~full), 1) * np.array(spacing_mm)

    count = int(a.any()) + int(b.any())
    if count < 2:
        return float("nan") if count == 0 else float("inf")
    d = cdist(shell(a), shell(b))
    return np.max([np.percentile(d.min(k), 95) for k in (0, 1)])
