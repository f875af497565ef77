"""Three whole papers for A7, each written in another way. All of them have to earn every point."""

# %% plain
import itertools

import numpy as np


def interval(a, b, draws):
    d = [y - x for x, y in zip(a, b)]
    means = []
    for row in draws:
        means.append(sum(d[k] for k in row) / len(row))
    return sum(d) / len(d), np.percentile(means, 2.5), np.percentile(means, 97.5)


def by_chance(differences):
    hits = tries = 0
    for minus in itertools.product([False, True], repeat=len(differences)):
        total = sum(-d if m else d for d, m in zip(differences, minus))
        tries += 1
        if abs(total) > abs(sum(differences)) - 1e-9:
            hits += 1
    return hits / tries


def selection(scores, watched):
    best, found = -1.0, None
    for epoch, row in enumerate(scores):
        mine = [row[k] for k in watched]
        rest = [row[k] for k in range(len(row)) if k not in watched]
        claimed = sum(mine) / len(mine)
        if claimed > best + 1e-12:
            best = claimed
            found = dict(epoch=epoch, claimed=claimed, honest=sum(rest) / len(rest))
    return found


def first_places(scores, draws):
    wins = [0.0] * len(scores)
    for row in draws:
        sums = [sum(system[k] for k in row) / len(row) for system in scores]
        top = max(sums)
        winners = [n for n, s in enumerate(sums) if top - s < 1e-9]
        for n in winners:
            wins[n] += 1 / len(winners) / len(draws)
    return wins


# %% counts
import numpy as np


def interval(a, b, draws):
    n = len(a)
    counts = np.stack([np.bincount(row, minlength=n) for row in draws])
    means = counts @ (b - a) / n
    q = np.quantile(means, (0.025, 0.975))
    return [np.mean(b - a), *q]


def by_chance(differences):
    sums = np.zeros(1)
    for d in differences:
        sums = np.concatenate([sums + d, sums - d])
    observed = np.abs(np.sum(differences))
    return np.count_nonzero(np.abs(sums) > observed - 1e-9) / sums.size


def selection(scores, watched):
    weight = np.zeros(scores.shape[1])
    weight[watched] = 1
    inside = scores @ weight / weight.sum()
    outside = scores @ (1 - weight) / (1 - weight).sum()
    epoch = next(k for k in range(len(scores)) if inside[k] >= inside.max() - 1e-12)
    return {"epoch": epoch, "claimed": inside[epoch], "honest": outside[epoch]}


def first_places(scores, draws):
    n = scores.shape[1]
    counts = np.stack([np.bincount(row, minlength=n) for row in draws], axis=1)
    means = scores @ counts / n
    first = np.abs(means - means.max(0)) < 1e-9
    return np.average(first / first.sum(0, keepdims=True), axis=1)


# %% functions
import functools

import numpy as np


def interval(a, b, draws):
    gain = np.subtract(b, a)
    drawn = np.take(gain, draws)
    means = np.sort(np.average(drawn, axis=-1))
    edges = (
        np.interp([0.025, 0.975], np.linspace(0, 1, len(means)), means)
        if len(means) > 1
        else means.repeat(2)
    )
    return tuple(map(float, (np.average(gain), *edges)))


def by_chance(differences):
    def sums(rest):
        if not len(rest):
            return [0.0]
        below = sums(rest[1:])
        return [rest[0] + s for s in below] + [s - rest[0] for s in below]

    every = sums(list(differences))
    return sum(round(abs(s), 9) >= round(abs(sum(differences)), 9) - 1e-9 for s in every) / len(
        every
    )


def selection(scores, watched):
    inside, outside = scores[:, watched], np.delete(scores, watched, axis=1)
    order = np.argsort(-np.round(inside.mean(1), 12), kind="stable")
    k = int(order[0])
    return {"honest": outside[k].mean(), "claimed": inside[k].mean(), "epoch": k}


def first_places(scores, draws):
    def one(row):
        means = scores[:, row].mean(axis=1)
        first = np.isclose(means, means.max(), rtol=0, atol=1e-9)
        return first / first.sum()

    return functools.reduce(np.add, map(one, draws)) / len(draws)
