"""What Dask would log of a run in which workers die and end: one sentence."""

from __future__ import annotations

import inspect
import logging

import pytest
from distributed import Client, Scheduler, Worker

from skelfit.executors import dask_logs
from skelfit.executors.dask_logs import dask_setup, lost_results_counted


def test_lost_results_are_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    with lost_results_counted(said.append):
        for _ in range(100):  # until Dask knows that the worker is dead
            for keys in (["a"], ["a", "b"]):
                log_lost(keys)
        logging.getLogger("distributed.client").error("Something else")
        assert said == []
    assert said == ["results lost with their workers, and asked for again: 2"]
    assert [record.getMessage() for record in caplog.records] == ["Something else"]
    log_lost(["c"])  # outside of a run Dask logs as it likes
    assert len(caplog.records) == 3 and len(said) == 1


def log_lost(keys: list[str]) -> None:
    """Log as scheduler and client do."""
    scheduler, client = "Couldn't gather keys: %s", "Couldn't gather %s keys, rescheduling %s"
    assert scheduler in inspect.getsource(Scheduler.gather) and client in inspect.getsource(Client._gather)
    logging.getLogger("distributed.scheduler").error(scheduler, dict.fromkeys(keys, "memory"))
    logging.getLogger("distributed.client").warning(client, len(keys), keys)


def test_nothing_is_said_of_a_run_without_losses() -> None:
    said: list[str] = []
    with lost_results_counted(said.append):
        pass
    assert said == []


def test_workers_keep_silent_about_heartbeats_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert dask_logs._HEARTBEAT in inspect.getsource(Worker.heartbeat)
    logger = logging.getLogger("distributed.worker")
    before = list(logger.filters)
    try:
        dask_setup(None)
        logger.error("Failed to communicate with scheduler during heartbeat.")
        logger.error("Something else")
    finally:
        logger.filters[:] = before
    assert [record.getMessage() for record in caplog.records][-1:] == ["Something else"]
    assert "Failed to communicate with scheduler during heartbeat." not in [r.msg for r in caplog.records]
