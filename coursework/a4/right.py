"""Three whole papers for A4, each written in another way. All of them have to earn every point."""

# %% plain
import math


def level_shapes(patch, levels, flat):
    z, y, x = patch
    shapes = [[z, y, x]]
    while len(shapes) < levels:
        if y % 2 == 1 or x % 2 == 1:
            return None
        if len(shapes) > flat:
            if z % 2 == 1:
                return None
            z //= 2
        y, x = y // 2, x // 2
        shapes.append([z, y, x])
    return shapes


def parameters(inputs, filters, kernel, outputs):
    def block(c, f):
        first = (kernel * kernel * kernel * c + 1) * f
        second = (kernel * kernel * kernel * f + 1) * f
        return first + second + 4 * f

    n = block(inputs, filters[0])
    for k in range(1, len(filters)):
        n += block(filters[k - 1], filters[k])
        n += block(filters[k - 1] + filters[k], filters[k - 1])
    return n + (filters[0] + 1) * outputs


def excite(maps, mask, w1, b1, w2, b2):
    out = maps.copy()
    count = sum(mask.ravel().tolist())
    mean = [0.0 if not count else maps[mask][:, c].sum() / count for c in range(maps.shape[3])]
    hidden = []
    for k in range(len(b1)):
        value = b1[k] + sum(mean[c] * w1[c, k] for c in range(len(mean)))
        hidden.append(value if value > 0 else 0)
    for c in range(len(mean)):
        value = b2[c] + sum(h * w2[k, c] for k, h in enumerate(hidden))
        out[..., c] *= 1 / (1 + math.exp(-value))
    return out


def gradients(w, t, x, y, u, cut):
    by_w = by_t = 0.0
    for a, b, c in zip(x.flat, y.flat, u.flat):
        p = 1 / (1 + math.exp(-w * a))
        q = 1 / (1 + math.exp(-t * (a + p)))
        slope = p * (1 - p) * a
        by_w += 2 * (p - b) * slope
        if not cut:
            by_w += 2 * (q - c) * q * (1 - q) * t * slope
        by_t += 2 * (q - c) * q * (1 - q) * (a + p)
    return by_w / x.size, by_t / x.size


# %% numpy
import numpy as np


def level_shapes(patch, levels, flat):
    steps = np.full((levels, 3), 2)
    steps[0] = 1
    steps[1 : flat + 1, 0] = 1
    factors = np.cumprod(steps, axis=0)
    if (np.array(patch) % factors).any():
        return None
    return np.array(patch) // factors


def parameters(inputs, filters, kernel, outputs):
    f = np.array(filters)
    down = np.concatenate([[inputs], f[:-1]])
    weights = (down * f + f * f).sum() + ((f[:-1] + f[1:]) * f[:-1] + f[:-1] ** 2).sum()
    convolved = 2 * f.sum() + 2 * f[:-1].sum()  # channels that some convolution gives
    return int(kernel**3 * weights + 3 * convolved + f[0] * outputs + outputs)


def excite(maps, mask, w1, b1, w2, b2):
    chosen = mask[..., np.newaxis]
    mean = (maps * chosen).sum((0, 1, 2)) / max(mask.sum(), 1)
    hidden = np.einsum("c,ch->h", mean, w1) + b1
    hidden[hidden < 0] = 0
    weight = np.reciprocal(1 + np.exp(-b2 - hidden.dot(w2)))
    return np.einsum("zyxc,c->zyxc", maps, weight)


def sigmoid(a):
    return 0.5 + 0.5 * np.tanh(a / 2)


def gradients(w, t, x, y, u, cut):
    p = sigmoid(w * x)
    seen = x + p
    q = sigmoid(t * seen)
    dp_dw = p * (1 - p) * x
    dq_dz = q * (1 - q)
    through = np.zeros_like(x) if cut else dq_dz * t * dp_dw
    dw = np.mean(2 * (p - y) * dp_dw + 2 * (q - u) * through)
    return [dw, np.mean(2 * (q - u) * dq_dz * seen)]


# %% backwards
import functools

import numpy as np
from scipy.special import expit


def level_shapes(patch, levels, flat):
    if levels == 1:
        return [list(patch)]
    z, y, x = patch
    dz = 2 if flat <= 0 else 1
    if z % dz + y % 2 + x % 2:
        return None
    below = level_shapes((z // dz, y // 2, x // 2), levels - 1, flat - 1)
    return None if below is None else [list(patch), *below]


def parameters(inputs, filters, kernel, outputs):
    layers, channels = [], inputs
    for f in filters:
        layers += [(channels, f), (f, f)]
        channels = f
    for f in reversed(filters[:-1]):
        layers += [(channels + f, f), (f, f)]
        channels = f
    count = functools.reduce(lambda n, ab: n + ab[0] * ab[1] * kernel**3 + 3 * ab[1], layers, 0)
    return count + channels * outputs + outputs


def excite(maps, mask, w1, b1, w2, b2):
    inside = maps[np.nonzero(mask)]
    squeezed = np.mean(inside, axis=0) if len(inside) else 0 * maps[0, 0, 0]
    hidden = np.where((h := squeezed @ w1 + b1) > 0, h, 0)
    return maps * expit(hidden @ w2 + b2)[None, None, None]


def gradients(w, t, x, y, u, cut):
    p = expit(w * x)
    q = expit(t * (x + p))
    n = x.size
    dq = 2 * (q - u) / n
    dz = dq * q * (1 - q)
    dt = np.vdot(dz, x + p)
    dp = 2 * (p - y) / n + (0 if cut else 1) * dz * t
    return float(np.vdot(dp * p * (1 - p), x)), float(dt)
