"""Who looks at slices does not wait for what others look at."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.api.slices import Display, SliceCache
from service.domain import Job


class Slow(SliceCache):
    """Loads when it is let; counts."""

    def __init__(self, container: Any) -> None:
        super().__init__(container)
        self.let, self.begun, self.loads = threading.Event(), threading.Event(), 0

    def _load(self, job: Job) -> Display:
        self.loads += 1
        self.begun.set()
        assert self.let.wait(10)
        return super()._load(job)


def test_a_kept_volume_is_not_waited_for(live: Any, made: Any, tmp_path: Any) -> None:
    upload = made.make_nifti(tmp_path / "ct.nii.gz").read_bytes()
    job, other = (
        live.container.jobs.require(live.done(upload, kind="application/gzip", params=params)["id"])
        for params in ({}, {"profile": "paper"})
    )
    cache = Slow(live.container)
    cache.let.set()
    kept = cache.get(job)
    cache.let.clear(), cache.begun.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(cache.get, other) for _ in range(2)]
        try:
            assert cache.begun.wait(10)
            assert cache.get(job) is kept
            assert not any(one.done() for one in waiting)
        finally:
            cache.let.set()
        first, second = (one.result() for one in waiting)
    assert first is second
    assert cache.loads == 2  # one for each volume
