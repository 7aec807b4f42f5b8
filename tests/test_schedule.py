"""The schedule's constants against the paper's numbers and brute force."""

import numpy as np
import pytest

from ddpm.errors import DdpmError
from ddpm.schedule import SCHEDULES, NoiseSchedule, make_schedule, schedule_from_betas


def test_the_papers_constants():
    schedule = make_schedule()
    assert len(schedule) == 1000
    assert schedule.betas.dtype == np.float64
    assert (schedule.betas[0], schedule.betas[-1]) == (1e-4, 0.02)
    assert schedule.alphas_cumprod[-1] == pytest.approx(4.04e-5, rel=2e-3)
    assert schedule.posterior_variance[0] == 0
    assert schedule.posterior_variance[1] == pytest.approx(5.45e-5, rel=2e-3)
    assert schedule.fixed_large_variance[0] == schedule.posterior_variance[1]
