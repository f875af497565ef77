"""Three whole papers for A6, each written in another way. All of them have to earn every point."""

# %% loops
from itertools import product

import numpy as np


def window_weights(window):
    weights = np.zeros(window)
    for z, y, x in product(*map(range, window)):
        weights[z, y, x] = 1
        for i, n in ((z, window[0]), (y, window[1]), (x, window[2])):
            weights[z, y, x] *= i + 1 if i < n / 2 else n - i
    return weights / np.max(weights)


def blend(answers, starts, weights, shape):
    above, below = np.zeros(shape), np.zeros(shape)
    for answer, (a, b, c) in zip(answers, starts):
        for z, y, x in np.ndindex(*weights.shape):
            try:
                below[a + z, b + y, c + x] += weights[z, y, x]
            except IndexError:
                continue
            above[a + z, b + y, c + x] += weights[z, y, x] * answer[z, y, x]
    below[below == 0] = 1
    return above / below


def mean_and_spread(maps):
    mean, spread = 0.0, 0.0
    for n, prob in enumerate(maps, start=1):  # Welford
        step = prob.astype(float) - mean
        mean = mean + step / n
        spread = spread + step * (prob - mean)
    return [mean, np.sqrt(spread / n)]


def grow(high, low, connectivity):
    far = {6: 1, 18: 2, 26: 3}[connectivity]
    seen = set(zip(*np.nonzero(high & low)))
    heap = list(seen)
    free = {tuple(v) for v in np.argwhere(low)}
    while heap:
        z, y, x = heap.pop()
        for dz, dy, dx in product((-1, 0, 1), repeat=3):
            other = (z + dz, y + dy, x + dx)
            if abs(dz) + abs(dy) + abs(dx) <= far and other in free and other not in seen:
                seen.add(other)
                heap.append(other)
    result = high.copy()
    for voxel in seen:
        result[voxel] = True
    return result


def verdict(whole_prob, tumor_prob, lnet_mask, rule):
    high = rule["high"]
    if whole_prob.max() < high:
        whole = whole_prob >= rule["empty_low"]
    else:
        whole = grow(whole_prob >= high, whole_prob >= rule["whole_low"], 26)
    if tumor_prob.max() >= high:
        few = (tumor_prob >= high).sum() < rule["small_voxels"]
        low = rule["small_low" if few else "tumor_low"]
        tumor = grow(tumor_prob >= high, tumor_prob >= low, 26)
    elif tumor_prob.max() >= rule["empty_low"]:
        tumor = tumor_prob >= rule["empty_low"]
    else:
        tumor = whole if rule["tumor_if_none"] else np.zeros(whole.shape, bool)
    label = np.zeros(whole.shape, int)
    label[whole] = 1
    label[tumor] = 2
    if lnet_mask.any():
        label[~lnet_mask] = 0
    return label


# %% dilation
import numpy as np
from scipy import ndimage


def window_weights(window):
    distance = ndimage.distance_transform_cdt
    weights = np.ones(window)
    for axis, n in enumerate(window):
        row = distance(np.pad(np.ones(n), 1))[1:-1]
        weights = np.moveaxis(np.moveaxis(weights, axis, -1) * row, -1, axis)
    return weights / np.amax(weights)


def blend(answers, starts, weights, shape):
    room = [n + w for n, w in zip(shape, weights.shape)]
    above, below = np.zeros(room), np.zeros(room)
    for answer, (z, y, x) in zip(answers, starts):
        d, h, w = weights.shape
        above[z : z + d, y : y + h, x : x + w] += weights * answer
        below[z : z + d, y : y + h, x : x + w] += weights
    with np.errstate(invalid="ignore"):
        mean = np.nan_to_num(above / below)
    return mean[: shape[0], : shape[1], : shape[2]]


def mean_and_spread(maps):
    stack = np.array(list(maps), np.float64)
    return np.mean(stack, 0), np.std(stack, 0)


def grow(high, low, connectivity):
    structure = ndimage.generate_binary_structure(3, [6, 18, 26].index(connectivity) + 1)
    inside = ndimage.binary_propagation(high & low, structure, mask=low)
    return inside | high


def verdict(whole_prob, tumor_prob, lnet_mask, rule):
    def reach(prob, name):
        return prob >= rule[name]

    w, t = reach(whole_prob, "high"), reach(tumor_prob, "high")
    whole = (
        grow(w, reach(whole_prob, "whole_low"), 26) if w.any() else reach(whole_prob, "empty_low")
    )
    if t.sum() == 0:
        tumor = reach(tumor_prob, "empty_low")
        if tumor.sum() == 0 and rule["tumor_if_none"]:
            tumor = whole.copy()
    elif t.sum() < rule["small_voxels"]:
        tumor = grow(t, reach(tumor_prob, "small_low"), 26)
    else:
        tumor = grow(t, reach(tumor_prob, "tumor_low"), 26)
    label = np.maximum(whole * 1, tumor * 2)
    keep = lnet_mask if lnet_mask.any() else True
    return label * keep


# %% helpers
import functools

import numpy as np
from scipy import ndimage


def hat(n):
    half = list(range(1, (n + 1) // 2 + 1))
    return np.array(half + half[::-1][n % 2 :], float)


def window_weights(window):
    hats = [hat(n) / hat(n).max() for n in window]
    return np.einsum("i,j,k->ijk", *hats)


def blend(answers, starts, weights, shape):
    total = np.zeros((2, *shape))
    for answer, start in zip(answers, starts):
        stop = np.minimum(np.add(start, weights.shape), shape)
        place = tuple(map(slice, start, stop))
        cut = tuple(map(slice, stop - np.array(start)))
        total[(0, *place)] += answer[cut] * weights[cut]
        total[(1, *place)] += weights[cut]
    return np.where(total[1] > 0, total[0] / np.where(total[1] > 0, total[1], 1), 0)


def mean_and_spread(maps):
    def add(sums, prob):
        p = np.asarray(prob, np.float64)
        return sums[0] + 1, sums[1] + p, sums[2] + p * p

    n, one, two = functools.reduce(add, maps, (0, 0.0, 0.0))
    return one / n, np.sqrt(np.clip(two / n - (one / n) ** 2, 0, None))


def grow(high, low, connectivity):
    order = {6: 1, 18: 2, 26: 3}[connectivity]
    labels, count = ndimage.label(low, ndimage.generate_binary_structure(3, order))
    kept = np.array(high)
    for number in range(1, count + 1):
        part = labels == number
        if (part & high).any():
            kept |= part
    return kept


def verdict(whole_prob, tumor_prob, lnet_mask, rule):
    def cut(prob, low):
        sure = prob >= rule["high"]
        if sure.any():
            return grow(sure, prob >= low, 26)
        return prob >= rule["empty_low"]

    whole = cut(whole_prob, rule["whole_low"])
    number = int((tumor_prob >= rule["high"]).sum())
    tumor = cut(
        tumor_prob, rule["small_low"] if number < rule["small_voxels"] else rule["tumor_low"]
    )
    if not tumor.any():
        tumor = whole & rule["tumor_if_none"]
    label = whole.astype(np.uint8)
    label[tumor] = 2
    if not lnet_mask.any():
        return label
    return np.where(lnet_mask, label, 0)
