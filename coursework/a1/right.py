"""Three whole papers for A1, each written in another way. All of them have to earn every point."""

# %% loops
import math


def side(affine, voxel, middle_mm):
    x = affine[0][3]
    for entry, index in zip(affine[0][:3], voxel):
        x += entry * index
    if x < middle_mm - 1e-3:
        return "left"
    if x > middle_mm + 1e-3:
        return "right"
    return "middle"


def volumes_ml(label, affine):
    (a, b, c), (d, e, f), (g, h, i) = [row[:3] for row in affine[:3]]
    mm3 = math.fabs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))
    volumes = {}
    for value in label.ravel().tolist():
        if value > 0:
            volumes[value] = volumes.get(value, 0) + mm3 / 1000
    return volumes


def value(volume, place):
    if not place:
        return volume
    p = min(max(place[0], 0), len(volume) - 1)
    k = int(p)
    first = value(volume[k], place[1:])
    return first if p == k else first * (k + 1 - p) + value(volume[k + 1], place[1:]) * (p - k)


def resample(volume, shape):
    def centers(axis):
        return [(i + 0.5) * volume.shape[axis] / shape[axis] - 0.5 for i in range(shape[axis])]

    return [
        [[float(value(volume, (z, y, x))) for x in centers(2)] for y in centers(1)]
        for z in centers(0)
    ]


def ceiling(mask, shape):
    def there(i, axis):
        j = (2 * i + 1) * shape[axis] // (2 * mask.shape[axis])
        return (2 * j + 1) * mask.shape[axis] // (2 * shape[axis])

    both = one = 0
    for z in range(mask.shape[0]):
        for y in range(mask.shape[1]):
            for x in range(mask.shape[2]):
                back = mask[there(z, 0), there(y, 1), there(x, 2)]
                both += bool(back and mask[z, y, x])
                one += int(back) + int(mask[z, y, x])
    return 1.0 if one == 0 else 2 * both / one


# %% matrices
import numpy as np


def side(affine, voxel, middle_mm):
    x = np.matmul(affine, np.append(voxel, 1))[0]
    return ["left", "middle", "right"][
        int(np.sign(x - middle_mm) * (abs(x - middle_mm) > 1e-3)) + 1
    ]


def volumes_ml(label, affine):
    edges = np.linalg.svd(affine[:3, :3], compute_uv=False)
    counts = np.bincount(label[label > 0].astype(int))
    return {n: c * np.prod(edges) / 1e3 for n, c in enumerate(counts) if c}


def matrix(n, m):
    weights = np.zeros((m, n))
    for i in range(m):
        place = min(max((i + 0.5) * n / m - 0.5, 0), n - 1)
        for j in range(n):
            weights[i, j] = max(0, 1 - abs(place - j))
    return weights


def resample(volume, shape):
    z, y, x = (matrix(n, m) for n, m in zip(volume.shape, shape))
    return np.einsum("az,by,cx,zyx->abc", z, y, x, volume)


def ceiling(mask, shape):
    def index(n, m):
        return np.floor((np.arange(m) + 0.5) * n / m).astype(int)

    grid = mask[np.ix_(*map(index, mask.shape, shape))]
    back = grid[np.ix_(*map(index, shape, mask.shape))]
    union, common = np.count_nonzero(mask | back), np.count_nonzero(mask & back)
    return 2 * common / (union + common) if union else 1


# %% scipy
import numpy as np
from scipy import ndimage


def side(affine, voxel, middle_mm):
    shift = np.dot(affine[0], [*voxel, 1.0]) - middle_mm
    return "middle" if np.abs(shift) < 0.001 else "left" if shift < 0 else "right"


def volumes_ml(label, affine):
    corner = affine[:3, :3]
    mm3 = np.sqrt(np.linalg.det(corner.T @ corner))
    names = [n for n in set(label.ravel().tolist()) if n > 0]
    sums = ndimage.sum_labels(np.ones(label.shape), label, names) if names else []
    return {n: s * mm3 / 1000 for n, s in zip(names, sums)}


def resample(volume, shape):
    for axis in range(3):
        n, m = volume.shape[axis], shape[axis]
        old, new = np.arange(n) + 0.5, (np.arange(m) + 0.5) * (n / m)
        volume = np.apply_along_axis(lambda row: np.interp(new, old, row), axis, volume)
    return volume


def ceiling(mask, shape):
    def to(volume, new):
        where = np.indices(new)
        index = [((2 * w + 1) * n) // (2 * m) for w, n, m in zip(where, volume.shape, new)]
        return volume[tuple(index)]

    back = to(to(mask, shape), mask.shape)
    if not mask.any() and not back.any():
        return 1.0
    return 1 - np.sum(mask ^ back) / (np.sum(mask) + np.sum(back))
