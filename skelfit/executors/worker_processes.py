"""Worker processes on this machine, for the time of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.security import Security

from skelfit.errors import ClusterError
from skelfit.executors import dask_logs
from skelfit.executors.dask_connection import CONNECTION

SETTINGS = CONNECTION | {
    # Tasks are handed to a worker when it is free, so that a lost worker takes no queue with it.
    "distributed.scheduler.worker-saturation": 1.0,
    # So many deaths of a worker are not a shard's fault; a shard that is too large for the memory ends here.
    "distributed.scheduler.allowed-failures": 5,
    # A lost process is started again. Dask's own value, 15 s, gives it up on a busy machine, and for good.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}


class _Workers(LocalCluster):
    """A LocalCluster that gives each of its processes one of the GPUs."""

    def __init__(self, count: int, gpus: Sequence[str], dashboard: bool, **options: Any) -> None:
        self.gpus, self.own = list(gpus), {"dashboard": dashboard}
        super().__init__(n_workers=0, **options)
        # As `scale` does, which does not wait for the processes and would not raise when they end at once.
        while len(self.worker_spec) < count:
            self.worker_spec.update(self.new_worker_spec())
        try:
            self.sync(self._correct_state)
        except BaseException:
            self.close()
            raise

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        """The next process; its first visible GPU is its own."""
        ((number, spec),) = super().new_worker_spec().items()
        options = {**spec["options"], **self.own}
        if self.gpus:
            options["env"] = {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]}
        return {number: {**spec, "options": options}}


@contextmanager
def local_client(workers: int, gpus: Sequence[str], dashboard: bool = False) -> Iterator[Client]:
    """A client of new worker processes. Raises ClusterError when they cannot be started.

    They listen on the loopback interface and talk over TLS with a key that only they know. Anyone who can talk
    to a Dask worker can run code as its owner, and other people may have accounts on this machine.
    """
    with dask.config.set(SETTINGS):
        try:
            cluster = _Workers(
                workers,
                gpus,
                dashboard,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                security=Security.temporary(),
                # Any free port: 8787, Dask's own, may be another run's. Without a dashboard Dask still opens one,
                # and on all interfaces, unless it is given an address.
                scheduler_kwargs={"dashboard": dashboard, "dashboard_address": "127.0.0.1:0"},
                worker_dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,  # a worker that is slow to stop is no news
                preload=dask_logs.__name__,
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(f"{workers} worker processes on 127.0.0.1 do not start: {error}") from None
        with cluster, Client(cluster) as client:
            yield client
