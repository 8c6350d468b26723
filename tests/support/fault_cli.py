"""`skelfit` as a program, with a fitter that needs no body models: `python fault_cli.py convert ...`.

All else is real: the command line, the processes, the files and the signals. What the fitter does beside its work is
told by the environment, which worker processes inherit:

    FAULT_DELAY    seconds that a shard's fit takes
    FAULT_HUNGRY   name of a shard whose fit takes all the memory it can get
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
from job_fakes import FakeFitter

import skelfit.api.convert_dataset
from skelfit.bodies.model_set import OPEN_BODY
from skelfit.cli import main
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.executors import worker_processes as local


def _eat() -> None:
    """Take memory until there is no more, slowly enough for a nanny to notice."""
    blocks = []
    while True:
        blocks.append(np.ones(32 << 20))
        time.sleep(0.05)


def fast_work(batch: ShardBatch, fitter: object = None) -> BatchJob:
    """Convert shards with the fake fitter."""
    if batch.name == os.environ.get("FAULT_HUNGRY"):
        _eat()
    delay = float(os.environ.get("FAULT_DELAY", "0"))
    return convert_batch(batch, FakeFitter(delay, len(batch.run.pipeline.fit.stages)))


if __name__ == "__main__":
    # A suite that runs in the background of a shell hands on that Ctrl-C is to be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # By its name, so that workers find it.
    import fault_cli

    convert = skelfit.api.convert_dataset
    convert.find_models = lambda _: SimpleNamespace(source=OPEN_BODY, sha256="0" * 64)  # type: ignore
    convert.make_fitter = lambda *_: None  # type: ignore
    convert.convert_batch = partial(fault_cli.fast_work)  # type: ignore
    local.SETTINGS["distributed.scheduler.allowed-failures"] = 1
    main()
