"""A scheduler and workers that run already: joined late, left early, secured, refused, lost."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from cluster_by_hand import ByHand, by_hand, certificates, notes, slow_work, wait_until, waiting_work
from job_fakes import batches_of, hashes, make_run, work, write_labels

from skelfit import __version__
from skelfit.cli import main
from skelfit.conversion.run_plan import Run
from skelfit.conversion.shard_outcome import ShardResult
from skelfit.errors import ClusterError
from skelfit.executors import dask_connection as connect
from skelfit.executors import dask_tasks as tasks
from skelfit.executors.dask_tasks import run_tasks
from skelfit.executors.executor import Executor, Tls
from skelfit.shards.shard_files import remove_temporaries


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="distributed")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return certificates(tmp_path_factory.mktemp("own") / "tls")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, own: Tls) -> Iterator[ByHand]:
    """A scheduler with certificates, and a worker."""
    with by_hand(tmp_path_factory.mktemp("secured"), own) as programs:
        programs.scheduler()
        programs.worker("worker")
        wait_until(programs.file.exists)
        yield programs


def run_in(folder: Path, **options: Any) -> Run:
    run = make_run(folder, **options)
    Path(run.out).mkdir()
    return run


def address_of(programs: ByHand) -> str:
    return str(json.loads(programs.file.read_text())["address"])


def refusal(tmp_path: Path, scheduler: object, tls: Tls | None = None) -> str:
    """The message of a run that cannot connect; it comes soon."""
    started = time.monotonic()
    with pytest.raises(ClusterError) as found:
        list(run_tasks(batches_of(make_run(tmp_path)), Executor(scheduler=str(scheduler), tls=tls), work))
    assert time.monotonic() - started < 60
    return str(found.value)


def test_one_worker_joins_late_and_one_leaves_early(tmp_path: Path) -> None:
    expected = run_in(tmp_path / "here", shard_size=1)
    assert len(list(run_tasks(batches_of(expected), work=work))) == 20
    run = run_in(tmp_path / "there", shard_size=1)
    processes = set()
    with by_hand(tmp_path) as programs:
        programs.scheduler()
        programs.worker("early")
        # The scheduler file is waited for.
        results = run_tasks(batches_of(run), Executor(scheduler=str(programs.file)), waiting_work)
        assert isinstance(next(results), ShardResult)
        programs.worker("late")
        joined = False
        for result in results:
            assert isinstance(result, ShardResult)
            processes = {line.split()[1] for line in notes(tmp_path / "there") if line.startswith("fake")}
            if not joined and len(processes) == 2:
                joined = True
                programs.stop("early", signal.SIGKILL)
    assert joined
    lines = [line.split() for line in notes(tmp_path / "there")]
    assert sorted(line[1] for line in lines if line[0] == "loaded") == sorted(processes)
    assert {line[2] for line in lines if line[0].startswith("fake")} == {"1"}, (
        "threads, where no option says how many"
    )
    # What the killed one was writing is removed by the command, which holds the folder's lock.
    remove_temporaries(Path(run.out), run.subset)
    assert hashes(Path(run.out)) == hashes(Path(expected.out))


def test_a_lost_scheduler_ends_the_run(tmp_path: Path) -> None:
    run = run_in(tmp_path, shard_size=1)
    with by_hand(tmp_path) as programs:
        programs.scheduler()
        programs.worker("worker")
        results = run_tasks(batches_of(run), Executor(scheduler=str(programs.file)), slow_work)
        assert isinstance(next(results), ShardResult)
        programs.stop("scheduler", signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(ClusterError, match="lost the scheduler; the finished shards are kept"):
            list(results)
        assert time.monotonic() - started < 60


def test_a_run_with_certificates(tmp_path: Path, secured: ByHand, own: Tls) -> None:
    run = run_in(tmp_path)
    address = address_of(secured)
    assert address.startswith("tls://127.0.0.1:")
    for scheduler in (str(secured.file), address, address.removeprefix("tls://")):
        results = list(run_tasks(batches_of(run), Executor(scheduler=scheduler, tls=own), work))
        assert len(results) == 3 and all(isinstance(r, ShardResult) for r in results)


def test_a_client_without_certificates_is_refused(
    tmp_path: Path, secured: ByHand, own: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 2.0)
    address = address_of(secured)
    assert f"{address}: expected certificates, found none; give --tls-ca" in refusal(tmp_path, address)
    assert "expected certificates, found none" in refusal(tmp_path, secured.file)
    plain = address.replace("tls:", "tcp:")
    said = refusal(tmp_path, plain)
    assert f"{plain}: expected a Dask scheduler, found none that answers" in said and "without TLS?" in said
    stranger = certificates(tmp_path / "stranger")
    said = refusal(tmp_path, address, stranger)
    assert "found none that answers" in said and "signed by the authority of --tls-ca" in said
    # A client that trusts the scheduler is not yet trusted by it.
    said = refusal(tmp_path, address, Tls(own.ca, stranger.cert, stranger.key))
    assert "found none that answers" in said and "signed by the authority of --tls-ca" in said
    assert f"{plain}: certificates were given, which need a scheduler at a tls:// address" in refusal(
        tmp_path, plain, own
    )


def test_unusable_certificates_are_named(tmp_path: Path, own: Tls) -> None:
    stranger = certificates(tmp_path / "stranger")
    missing, words = tmp_path / "missing.pem", tmp_path / "words.pem"
    words.write_text("these are words")
    for tls, named in (
        (Tls(missing, own.cert, own.key), f"{missing}: expected a certificate"),
        (Tls(words, own.cert, own.key), f"{words}: expected a certificate"),
        (Tls(own.ca, words, own.key), f"{words} and {own.key}: expected a certificate and its key"),
        (Tls(own.ca, own.cert), f"{own.cert}: expected a certificate and its key"),
        (Tls(own.ca, own.cert, stranger.key), f"{own.cert} and {stranger.key}: expected"),
    ):
        assert refusal(tmp_path, "tls://127.0.0.1:9", tls).startswith(named)


def test_no_scheduler_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 0.3)
    for scheduler in ("tcp://127.0.0.1:9", "127.0.0.1:9", "tcp://no-such-host.invalid:8786", "soap://here:1"):
        said = refusal(tmp_path, scheduler)
        assert scheduler in said and "expected a Dask scheduler, found none that answers" in said
    stale, broken = tmp_path / "stale.json", tmp_path / "broken.json"
    stale.write_text('{"address": "tcp://127.0.0.1:9"}')
    assert f"tcp://127.0.0.1:9 (of {stale}): expected a Dask scheduler" in refusal(tmp_path, stale)
    broken.write_text("{}")
    assert f"{broken}: expected the file of a Dask scheduler" in refusal(tmp_path, broken)
    assert "found no such file for 0.3 s" in refusal(tmp_path, tmp_path / "none.json")


def test_the_command_line_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: object
) -> None:
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr("skelfit.api.convert_dataset.find_models", lambda _: models)
    labels = write_labels(tmp_path / "people.npz")
    arguments = ["convert", "--labels", labels, "--source", "camerahmr", "--out", tmp_path / "out"]

    def refused(*more: object) -> str:
        result = CliRunner().invoke(main, [str(a) for a in (*arguments, *more)])
        assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert "Traceback" not in result.output
        return line

    there = ["--scheduler", "tls://127.0.0.1:9"]
    assert "tcp://127.0.0.1:9: expected a Dask scheduler" in refused("--scheduler", "tcp://127.0.0.1:9")
    assert "expected certificates, found none" in refused(*there)
    assert "no.pem: expected a certificate" in refused(*there, "--tls-ca", "no.pem", "--tls-cert", "no.pem")
    assert "--tls-ca: expected tls_ca and tls_cert together" in refused(*there, "--tls-ca", "no.pem")
    assert "--tls-ca: expected a scheduler" in refused("--tls-ca", "no.pem", "--tls-cert", "no.pem")
    assert "--workers: expected none beside a scheduler" in refused(*there, "--workers", 2)


@pytest.mark.parametrize("process", ["scheduler", "worker"])
@pytest.mark.parametrize("version", ["0.0.1", None])
def test_everyone_runs_the_same_version(process: str, version: str | None) -> None:
    def check(scheduler: str | None, worker: str | None) -> None:
        client: Any = SimpleNamespace(
            run_on_scheduler=lambda _: scheduler,
            run=lambda _, on_error: {"tcp://w:1": __version__, "tcp://w:2": worker},
        )
        connect._check_versions(client, "tcp://s:1")

    check(__version__, __version__)
    with pytest.raises(ClusterError) as error:
        check(*(version if name == process else __version__ for name in ("scheduler", "worker")))
    running = "scheduler at tcp://s:1" if process == "scheduler" else "worker at tcp://w:2"
    said = f"the {running}: expected skelfit {__version__}, as here, found {version or 'none'}"
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("content", "found"), [("__version__ = '0.0.1'", "0.0.1"), ("import nothing", "none")]
)
def test_a_scheduler_of_another_skelfit_is_refused(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "skelfit").mkdir()
    (tmp_path / "skelfit" / "__init__.py").write_text(content)
    file = tmp_path / "scheduler.json"
    command = [
        sys.executable,
        "-m",
        "dask",
        "scheduler",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--no-dashboard",
    ]
    # One that is started from nothing: another has imported this skelfit.
    with subprocess.Popen(
        [*command, "--scheduler-file", str(file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    ) as scheduler:
        try:
            assert f"expected skelfit {__version__}, as here, found {found}" in refusal(tmp_path, file)
        finally:
            scheduler.kill()


def test_a_cluster_without_workers_says_so_until_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "WATCH_SECONDS", 0.2)
    run, said = run_in(tmp_path), []
    with by_hand(tmp_path) as programs:
        programs.scheduler()

        def say(message: str) -> None:
            if not message.startswith("dashboard"):
                said.append(message)
            if len(said) == 1:
                programs.worker("worker")

        executor = Executor(scheduler=str(programs.file), patience=60)
        assert len(list(run_tasks(batches_of(run), executor, slow_work, say))) == 3
        assert f"start one with: dask worker --nthreads 1 {address_of(programs)}" in said[0]
    assert "no worker is connected, 3 shards wait" in said[0] and "1 workers are here again" in said[1]
