"""The schedule of the learning rate."""

import numpy as np
import pytest

from training.config import OptimiserConfig
from training.loop import trapezoid


def test_trapezoid_rises_holds_and_falls() -> None:
    rule = OptimiserConfig(lr=2.0, schedule="trapezoid", warmup=10, cooldown=20)
    rates = [trapezoid(rule, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert (np.diff(rates[:10]) > 0).all()
    assert rates[9:81] == [2.0] * 72
    assert (np.diff(rates[80:]) < 0).all()
    assert rates[-1] == pytest.approx(0.1)


def test_trapezoid_can_be_made_longer_while_it_holds() -> None:
    rule = OptimiserConfig(lr=1.0, schedule="trapezoid", warmup=5, cooldown=10)
    short, long = ([trapezoid(rule, s, n) for s in range(40)] for n in (50, 500))
    assert short == long


def test_trapezoid_without_ramps_is_flat() -> None:
    rule = OptimiserConfig(lr=1.0, schedule="trapezoid")
    assert {trapezoid(rule, step, 9) for step in range(9)} == {1.0}
