"""Three whole papers for A5, each written in another way. All of them have to earn every point."""

# %% plain
import math

import numpy as np


def rates(losses, rate, factor, patience, delta, lowest):
    result = [rate]
    best = losses[0]
    bad = 0
    for loss in losses[1:]:
        result.append(rate)
        if best - loss > delta:
            best = loss
            bad = 0
            continue
        bad = bad + 1
        if bad >= patience:
            bad = 0
            rate = rate * factor
            if rate < lowest:
                rate = lowest
    return result


def stop(losses, patience):
    best, kept, since = None, 0, 0
    for n in range(len(losses)):
        if not math.isnan(losses[n]) and (best is None or losses[n] < best):
            best, kept, since = losses[n], n + 1, 0
        else:
            since += 1
        if since == patience:
            return [kept, n + 1]
    return [kept, len(losses)]


def adam(weights, gradients, rate, state):
    w = [float(x) for x in weights]
    n, m, v = state["all"] if state else (0, [0.0] * len(w), [0.0] * len(w))
    m, v = list(m), list(v)
    for g in gradients:
        n = n + 1
        for k in range(len(w)):
            m[k] = 0.9 * m[k] + (1 - 0.9) * g[k]
            v[k] = 0.999 * v[k] + (1 - 0.999) * g[k] * g[k]
            top = m[k] / (1 - math.pow(0.9, n))
            w[k] -= rate * top / (math.sqrt(v[k] / (1 - math.pow(0.999, n))) + 1e-7)
    return np.array(w), {"all": [n, m, v]}


# %% generators
import numpy as np


def rates(losses, rate, factor, patience, delta, lowest):
    def each():
        now, best, stamp = rate, np.inf, 0
        for n, loss in enumerate(losses):
            yield now
            if loss + delta < best and not np.isclose(loss + delta, best, rtol=0, atol=1e-12):
                best, stamp = loss, n
            elif n - stamp == patience:
                now, stamp = np.maximum(lowest, now * factor), n

    return [float(r) for r in each()]


def stop(losses, patience):
    clean = np.nan_to_num(np.array(losses), nan=np.inf)
    lowest = np.minimum.accumulate(clean)
    previous = np.concatenate([[np.inf], lowest[:-1]])
    news = np.flatnonzero(clean < previous) + 1
    for start, end in zip([0, *news], [*news, 10**9]):
        if end - start > patience and start + patience <= len(losses):
            return start, start + patience
    return (news[-1] if len(news) else 0), len(losses)


def adam(weights, gradients, rate, state):
    state = dict(state or {"power1": 1.0, "power2": 1.0, "means": np.zeros((2, len(weights)))})
    w, means = np.copy(weights), np.copy(state["means"])
    keep = np.array([[0.9], [0.999]])
    for g in gradients:
        state["power1"] *= 0.9
        state["power2"] *= 0.999
        means = keep * means + (1 - keep) * np.stack([g, g * g])
        first = means[0] / (1 - state["power1"])
        second = means[1] / (1 - state["power2"])
        w = w - rate * first / (second**0.5 + 1e-7)
    state["means"] = means
    return w, state


# %% classes
import numpy as np


class Plateau:
    def __init__(self, patience, delta):
        self.best, self.left = float("inf"), patience
        self.patience, self.delta = patience, delta

    def falls(self, loss):
        if self.best - loss > self.delta:
            self.best, self.left = loss, self.patience
            return False
        self.left -= 1
        if self.left:
            return False
        self.left = self.patience
        return True


def rates(losses, rate, factor, patience, delta, lowest):
    plateau, out = Plateau(patience, delta), []
    for loss in losses:
        out += [rate]
        if plateau.falls(loss):
            rate = max(lowest, rate * factor)
    return np.array(out)


def stop(losses, patience):
    plateau, kept = Plateau(patience, 0.0), 0
    for epoch, loss in enumerate(losses):
        before = plateau.best
        if plateau.falls(loss):
            return kept, epoch + 1
        if plateau.best < before:
            kept = epoch + 1
    return kept, len(losses)


def adam(weights, gradients, rate, state):
    past = np.array(gradients) if state is None else np.vstack([state["past"], gradients])
    done = 0 if state is None else len(state["past"])
    w = np.array(weights)
    for n in range(done + 1, len(past) + 1):
        age = np.arange(n - 1, -1, -1)
        m = (0.1 * 0.9**age) @ past[:n]
        v = (0.001 * 0.999**age) @ np.square(past[:n])
        w -= rate * m / (1 - 0.9**n) / (np.sqrt(v / (1 - 0.999**n)) + 1e-7)
    return w, {"past": past}
