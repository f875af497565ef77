"""The simulated cluster, against answers that are known."""

import math

import numpy as np
import pytest

from tunet_lib.simulation import Cluster, daly_h, simulate, young_h


def rng():
    return np.random.default_rng(0)


def test_one_gpu_and_no_mishap():
    cost = simulate([3.0, 2.0], Cluster(1), rng(), interval_h=1.0, save_h=0.1, start_h=0.25)
    assert cost.trained_h == 5.0
    assert cost.saving_h == pytest.approx(0.5)  # 3 + 2 checkpoints, the last one at the end
    assert (cost.starting_h, cost.lost_h) == (0.5, 0.0)
    assert cost.wall_h == cost.gpu_h == pytest.approx(6.0)
    assert cost.wasted == pytest.approx(1 / 6)


@pytest.mark.parametrize(("gpus", "wall_h"), [(1, 150), (20, 9), (25, 6), (49, 6), (50, 3)])
def test_fifty_trainings_take_as_many_rounds_as_they_need(gpus, wall_h):
    cost = simulate([3.0] * 50, Cluster(gpus), rng(), interval_h=0.5)
    assert cost.wall_h == pytest.approx(wall_h)
    assert cost.wasted == 0


def test_a_time_limit_loses_what_is_after_the_last_checkpoint():
    # 27 hours in jobs of 10: a checkpoint every 4 hours keeps 8 of each 10, and 2 are lost.
    cost = simulate([27.0], Cluster(1, limit_h=10), rng(), interval_h=4.0)
    assert cost.lost_h == pytest.approx(3 * 2.0)
    assert cost.wall_h == cost.gpu_h == pytest.approx(33.0)


def test_a_start_that_is_cut_off_trains_nothing():
    cost = simulate([1.0], Cluster(1, limit_h=2.0), rng(), interval_h=1.0, start_h=1.0)
    assert cost.gpu_h == 2.0
    cluster = Cluster(1, preempted_h=2.0)
    cost = simulate([1.0] * 200, cluster, rng(), interval_h=0.1, start_h=0.5)
    assert cost.starting_h > 200 * 0.5
    assert cost.gpu_h == pytest.approx(200 + cost.lost_h + cost.starting_h)


def test_waits_and_repairs_cost_time_on_the_clock_and_no_gpu():
    waited = simulate([1.0] * 2000, Cluster(1, wait_h=2.0), rng(), interval_h=1.0)
    assert waited.gpu_h == 2000
    assert waited.wall_h / 2000 == pytest.approx(3.0, rel=0.05)
    quick = simulate([50.0], Cluster(1, failed_h=5.0), rng(), interval_h=0.5)
    slow = simulate([50.0], Cluster(1, failed_h=5.0, repair_h=3.0), rng(), interval_h=0.5)
    assert slow.gpu_h == quick.gpu_h
    assert (slow.wall_h - quick.wall_h) % 3.0 == pytest.approx(0.0, abs=1e-9)
    assert slow.wall_h > quick.wall_h + 3.0


def test_without_checkpoints_it_is_the_formula_of_the_chapter():
    whole_h, between_h = 27.0, 27.0
    cluster = Cluster(1, preempted_h=between_h)
    cost = simulate([whole_h] * 4000, cluster, rng(), interval_h=whole_h)
    expected = between_h * math.expm1(whole_h / between_h)
    assert cost.gpu_h / 4000 == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(("interval_h", "save_h", "start_h"), [(0.5, 0.05, 0.1), (2.0, 0.2, 0.0)])
def test_with_checkpoints_it_is_dalys_formula(interval_h, save_h, start_h):
    """Daly 2006, Eq. 20: the expected time with interruptions at random, restarts included."""
    whole_h, between_h = 200.0, 4.0
    cluster = Cluster(1, preempted_h=between_h)
    options = {"interval_h": interval_h, "save_h": save_h, "start_h": start_h}
    costs = [simulate([whole_h] * 20, cluster, np.random.default_rng(k), **options) for k in (0, 1)]
    segments = whole_h / interval_h
    step = math.expm1((interval_h + save_h) / between_h)
    expected = between_h * math.exp(start_h / between_h) * step * segments
    for cost in costs:
        assert cost.gpu_h / 20 == pytest.approx(expected, rel=0.05)


def test_the_same_seed_gives_the_same_study():
    cluster = Cluster(3, wait_h=1.0, preempted_h=4.0, failed_h=100.0, repair_h=2.0, limit_h=24.0)
    one, same = (simulate([9.0] * 9, cluster, rng(), interval_h=0.5) for _ in range(2))
    other = simulate([9.0] * 9, cluster, np.random.default_rng(1), interval_h=0.5)
    assert one == same != other


def test_young_and_daly():
    assert young_h(0.5, 4.0) == 2.0
    assert daly_h(0.5, 4.0) == pytest.approx(2.0 * (1 + 0.25 / 3 + 0.0625 / 9) - 0.5)
    assert daly_h(9.0, 4.0) == 4.0  # a checkpoint takes longer than there is time
    for save_h in (1e-4, 1e-6):
        assert daly_h(save_h, 4.0) == pytest.approx(young_h(save_h, 4.0), rel=0.01)


def test_the_cheapest_interval_is_where_the_formulas_say():
    cluster, save_h = Cluster(1, preempted_h=4.0), 0.05
    tried = np.geomspace(0.1, 4.0, 12)
    gpu_h = [
        simulate([27.0] * 200, cluster, rng(), interval_h=interval_h, save_h=save_h).gpu_h
        for interval_h in tried
    ]
    best = tried[int(np.argmin(gpu_h))]
    assert 0.6 < best / daly_h(save_h, 4.0) < 1.6
    assert 0.6 < best / young_h(save_h, 4.0) < 1.6


def test_a_limit_before_the_first_checkpoint_is_refused():
    with pytest.raises(ValueError, match="no checkpoint is reached in 1 h"):
        simulate([4.0], Cluster(gpus=1, limit_h=1.0), rng(), interval_h=2.0)
    assert simulate([0.5], Cluster(gpus=1, limit_h=1.0), rng(), interval_h=2.0).wall_h == 0.5


@pytest.mark.parametrize(
    ("limit_h", "interval_h", "save_h", "start_h"),
    [(1.0, 0.93, 0.02, 0.05), (4.0, 3.7, 0.1, 0.2)],
)
def test_a_limit_that_just_holds_one_checkpoint_is_enough(limit_h, interval_h, save_h, start_h):
    cost = simulate(
        [3 * interval_h],
        Cluster(1, limit_h=limit_h),
        rng(),
        interval_h=interval_h,
        save_h=save_h,
        start_h=start_h,
    )
    assert cost.lost_h == pytest.approx(0, abs=1e-6)
    assert cost.wall_h == pytest.approx(3 * (interval_h + save_h + start_h))


def test_an_interruption_makes_no_checkpoint_more():
    for seed in range(50):
        cluster = Cluster(1, preempted_h=9.0)
        cost = simulate([9.0], cluster, np.random.default_rng(seed), interval_h=0.3, save_h=0.01)
        assert cost.saving_h == pytest.approx(30 * 0.01)


def test_without_end_there_is_one_checkpoint_at_the_end():
    cluster = Cluster(2, preempted_h=2.0)
    with_end, without = (
        simulate([3.0, 4.0], cluster, np.random.default_rng(0), interval_h=h, save_h=0.1)
        for h in (100.0, math.inf)
    )
    assert with_end == without


@pytest.mark.parametrize("interval_h", [0, -1, math.nan])
def test_no_interval_is_refused(interval_h):
    with pytest.raises(ValueError, match="interval_h"):
        simulate([1.0], Cluster(1), np.random.default_rng(0), interval_h=interval_h)


def test_nothing_to_train_wastes_nothing():
    assert simulate([], Cluster(1), np.random.default_rng(0), interval_h=1).wasted == 0
