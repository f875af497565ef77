"""A study on a shared cluster, on paper: waiting, interruptions, and what checkpoints save.

It is here, and not in the chapter, so that it has tests: a simulation that is slightly wrong
still draws a smooth curve.

Chapter 10 (``notebooks/10_folds_cluster.ipynb``).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9  # of an hour, or a checkpoint: sums of hours end a little above or below


@dataclass(frozen=True)
class Cluster:
    """What a cluster grants, in hours.

    Attributes
    ----------
    gpus
        How many at a time.
    wait_h
        Mean wait in the queue before each start, exponentially distributed.
    preempted_h, failed_h
        Mean time until somebody more important takes a GPU away, and until its node fails.
    repair_h
        How long a node that failed is away.
    limit_h
        The longest that a job may take.
    """

    gpus: int
    wait_h: float = 0.0
    preempted_h: float = math.inf
    failed_h: float = math.inf
    repair_h: float = 0.0
    limit_h: float = math.inf


@dataclass(frozen=True)
class Cost:
    """What a study took, in hours: on the clock, and of GPUs, for what.

    Attributes
    ----------
    wall_h
        From the first submission to the end of the last training.
    trained_h
        Training that counted.
    lost_h
        Training that was lost, since it was after the last checkpoint.
    saving_h, starting_h
        Checkpoints, and starts: reading the data, compiling the network.
    """

    wall_h: float
    trained_h: float
    lost_h: float
    saving_h: float
    starting_h: float

    @property
    def gpu_h(self) -> float:
        """Hours of GPUs that were used up."""
        return self.trained_h + self.lost_h + self.saving_h + self.starting_h

    @property
    def wasted(self) -> float:
        """Share of them, 0 to 1, in which nothing was trained that counted."""
        return 1 - self.trained_h / self.gpu_h if self.gpu_h else 0.0


def simulate(
    trainings_h: Sequence[float],
    cluster: Cluster,
    rng: np.random.Generator,
    *,
    interval_h: float,
    save_h: float = 0.0,
    start_h: float = 0.0,
) -> Cost:
    """Play through a study once.

    Parameters
    ----------
    trainings_h
        How long each training takes if nothing happens, in hours; they are queued in this order.
    cluster
        Where it runs.
    rng
        Draws waits and interruptions.
    interval_h
        Hours of training between two checkpoints; infinity is a single one at the end.
    save_h, start_h
        How long a checkpoint and a start take.

    Raises
    ------
    ValueError
        A job is over before its first checkpoint, or `interval_h` is not above 0.
    """
    if not interval_h > 0:
        raise ValueError(f"{interval_h=}, expected hours above 0")
    interval_h = min(interval_h, max(trainings_h, default=interval_h))
    longest_h = max((min(h, interval_h) for h in trainings_h), default=0.0)
    if start_h + longest_h + save_h > cluster.limit_h:
        raise ValueError(f"no checkpoint is reached in {cluster.limit_h:g} h: it would never end")
    free_at = [0.0] * cluster.gpus
    queue = [(0.0, number) for number in range(len(trainings_h))]  # since when, and which
    left_h = list(trainings_h)
    lost_h = saving_h = starting_h = wall_h = 0.0
    while queue:
        since, number = heapq.heappop(queue)
        start = max(heapq.heappop(free_at), since) + rng.exponential(cluster.wait_h)
        failure, preemption = (_until(rng, h) for h in (cluster.failed_h, cluster.preempted_h))
        granted_h = min(failure, preemption, cluster.limit_h)
        saves = math.ceil(left_h[number] / interval_h - ROUNDING)
        needed_h = start_h + left_h[number] + saves * save_h
        used_h = min(needed_h, granted_h)
        if needed_h > granted_h + ROUNDING:
            trained_h = max(0.0, granted_h - start_h)
            saves = int(trained_h / (interval_h + save_h) + ROUNDING)
            lost_h += max(0.0, trained_h - saves * (interval_h + save_h))
            left_h[number] -= saves * interval_h
            heapq.heappush(queue, (start + used_h, number))
        starting_h += min(start_h, granted_h)
        saving_h += saves * save_h
        away_h = cluster.repair_h if failure == granted_h < needed_h else 0.0
        heapq.heappush(free_at, start + used_h + away_h)
        wall_h = max(wall_h, start + used_h)
    return Cost(wall_h, sum(trainings_h), lost_h, saving_h, starting_h)


def young_h(save_h: float, between_h: float) -> float:
    """Give Young's interval between checkpoints, hours.

    Parameters
    ----------
    save_h
        How long a checkpoint takes.
    between_h
        Mean time between interruptions.
    """
    return math.sqrt(2 * save_h * between_h)


def daly_h(save_h: float, between_h: float) -> float:
    """Give Daly's interval between checkpoints, hours; parameters are as for `young_h`.

    Source: Daly 2006, Eq. 37.
    """
    if save_h >= 2 * between_h:
        return between_h
    ratio = math.sqrt(save_h / (2 * between_h))
    return young_h(save_h, between_h) * (1 + ratio / 3 + ratio**2 / 9) - save_h


def _until(rng: np.random.Generator, mean_h: float) -> float:
    return math.inf if math.isinf(mean_h) else float(rng.exponential(mean_h))
