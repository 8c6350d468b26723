"""Kills a run at every point at which it changes its output folder, and lets another finish it: `crash_points.py DIR`.

A program of its own, because it forks: what is imported once serves hundreds of runs. Each child runs until it is about
to open a file for writing, rename, remove or write a sample for the n-th time, and is killed by a real SIGKILL there.
Prints how many points there were.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import webdataset
from job_fakes import FakeFitter, hashes, make_run
from refine_fakes import refine
from tqdm import tqdm

from skelfit.api.run_shards import convert_rank, convert_run
from skelfit.bodies.model_set import open_models
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.rank import Rank
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import Run
from skelfit.shards.shard_reader import read_json

WATCHED = ("open", "os.rename", "os.remove")
FINAL = (".tar", ".rows.jsonl", ".done.json", "schema.json", "summary.json")


class Countdown:
    """Kills this process the n-th time that it is about to change a folder."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.left = str(folder), n

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, args: tuple[object, ...]) -> None:
        if event not in WATCHED or not str(args[0]).startswith(self.folder):
            return
        if event == "open":
            flags = args[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
                return
        self.tick()

    def start(self) -> None:
        sys.addaudithook(self.audit)
        write = webdataset.TarWriter.write

        def counted(tar: object, sample: object) -> object:
            self.tick()
            return write(tar, sample)

        webdataset.TarWriter.write = counted


def convert(run: Run, rank: Rank | None = None, *, extend: bool = False) -> None:
    """A run, or a rank of it, without its words."""
    work = partial(convert_batch, fitter=FakeFitter())
    with (
        open(os.devnull, "w") as null,
        redirect_stdout(null),
        redirect_stderr(null),
        writing(Path(run.out), run.subset, rank),
    ):
        if rank is None:
            convert_run(run, work=work, extend=extend)
        else:
            convert_rank(run, rank, work=work, extend=extend)


def in_child(run: Run, kill_at: int = 0, rank: Rank | None = None, *, extend: bool = False) -> bool:
    """Run in a child; True when it ended well, False when it was killed, and an error when it ended otherwise."""
    return forked(partial(convert, run, rank, extend=extend), Path(run.out), kill_at)


def forked(work: Callable[[], object], out: Path, kill_at: int = 0) -> bool:
    """The same for any work that changes a folder."""
    child = os.fork()
    if child == 0:
        try:
            if kill_at:
                Countdown(out, kill_at).start()
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, f"a run that was to be killed at {kill_at} ended with an error"
    return True


def check(out: Path, expected: dict[str, str], point: object) -> None:
    """Whatever stands under its own name is whole."""
    for name, found in hashes(out).items():
        if not name.startswith(".") and name.endswith(FINAL):
            assert found == expected[name], f"killed at {point}: {name} is not whole"


def points(run: Run) -> Iterator[int]:
    """Kill a run at every point in turn, each time from an empty folder."""
    n = 1
    while True:
        shutil.rmtree(run.out, ignore_errors=True)
        if in_child(run, n):
            return
        yield n
        n += 1


def main(folder: Path) -> None:
    """Every point once, and then pairs: a run that is killed, whose continuation is killed as well."""
    run = make_run(folder, people=12, images=True, shard_size=5)
    tqdm.monitor_interval = 0  # or it leaves a thread, and a fork is to copy none
    convert(run)  # here, so that what it imports on its way is imported once
    assert threading.active_count() == 1
    out, expected = Path(run.out), hashes(Path(run.out))
    assert len(expected) == 3 * 3 + 1
    count = 0
    for n in points(run):
        count += 1
        check(out, expected, n)
        assert in_child(run), f"not continued after a kill at {n}"
        assert hashes(out) == expected, f"other files after a kill at {n}"
    chosen = random.Random(0)
    for _ in range(10):
        shutil.rmtree(out)
        pair = chosen.randint(1, count), chosen.randint(1, count)
        in_child(run, pair[0])
        in_child(run, pair[1])
        check(out, expected, pair)
        assert in_child(run) and hashes(out) == expected, f"other files after kills at {pair}"
    kill_ranks(run, expected, count, chosen)
    kill_extensions(run, count, chosen)
    kill_refinements(run, count, chosen)
    print(count)


def kill_ranks(run: Run, expected: dict[str, str], count: int, chosen: random.Random) -> None:
    """Two ranks, each of which is killed once, and started again."""
    for _ in range(6):
        shutil.rmtree(run.out)
        pair = chosen.randint(1, count), chosen.randint(1, count)
        ranks = [Rank(0, 2), Rank(1, 2)]
        for rank, n in zip(ranks, pair, strict=True):
            in_child(run, n, rank)
        assert in_child(run, rank=ranks[0]) and in_child(run, rank=ranks[1])
        assert hashes(Path(run.out)) == expected, f"other files after kills of ranks at {pair}"
        assert (Path(run.out) / "summary.json").exists()


def kill_extensions(run: Run, count: int, chosen: random.Random) -> None:
    """An extension that is killed and started again."""
    narrow = replace(run, labels=(replace(run.labels[0], rows=7),))
    expected: dict[str, str] = {}
    for n in [0, *(chosen.randint(1, count // 2) for _ in range(6))]:
        shutil.rmtree(run.out)
        convert(narrow)
        in_child(run, n, extend=True)
        assert in_child(run, extend=True)
        expected = expected or hashes(Path(run.out))
        assert len(expected) == 3 * 3 + 1 and hashes(Path(run.out)) == expected, f"other files after {n}"


def kill_refinements(run: Run, count: int, chosen: random.Random) -> None:
    """A refinement that is killed, and whose continuation is killed as well, and so are two ranks of it."""
    source = Path(run.out).with_name("source")
    run = replace(run, out=str(source), models_sha256=open_models().sha256)
    convert(run)
    was, out = hashes(source), source.with_name("refined")

    def refined(rank: Rank | None = None) -> None:
        with open(os.devnull, "w") as null, redirect_stdout(null), redirect_stderr(null):
            refine(source, out, stand_in=True, rank=rank)

    refined()
    expected = hashes(out)
    statuses = read_json(out / "summary.json")["refinement"]["statuses"]
    assert len(expected) == 3 * 3 + 1 and statuses["refined"] and statuses["unchanged"]
    for k in range(8):
        shutil.rmtree(out)
        pair = [chosen.randint(1, count), chosen.randint(1, count)]
        ranks = (Rank(0, 2), Rank(1, 2)) if k % 4 == 3 else (None, None)
        for rank, n in zip(ranks, pair, strict=True):
            forked(partial(refined, rank), out, n)
        check(out, expected, pair)
        for rank in ranks:
            assert forked(partial(refined, rank), out), f"not continued after kills at {pair}"
        assert hashes(out) == expected, f"other files of a refinement after kills at {pair}"
    assert hashes(source) == was


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside idle threads
    main(Path(sys.argv[1]))
