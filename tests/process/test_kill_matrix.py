"""SIGKILL at random moments, of random processes, in each way that a run can go; then a rerun has the same bytes.

All ways together: in this process, by Dask with batches and writers of several sizes, by ranks, onto a disk and onto
S3. `make soak` kills once or twice in each; SKELFIT_KILLS=50 says how often in all, SKELFIT_KILL_SEED which moments.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import programs
import psutil
import pytest
import spawned
from job_fakes import write_images, write_labels
from programs import Program
from s3_server import s3, s3_server  # noqa: F401  fixtures
from upath import UPath

PEOPLE, SHARD = 768, 32
FINAL = (".tar", ".rows.jsonl", ".done.json")
RERUNS = 5
SECONDS = 300.0  # that a run may take on a busy machine
DELAY = {"FAULT_DELAY": "0.1"}  # that each fit takes

Words = tuple[object, ...]
WAYS: dict[str, tuple[Words, ...]] = {  # the options of each process
    "here": (("--workers", 0),),
    "batch-256-writers-1": (("--workers", 2, "--fit-batch", 256, "--writers", 1),),
    "batch-256-writers-4": (("--workers", 2, "--fit-batch", 256, "--writers", 4),),
    "batch-65536-writers-1": (("--workers", 2, "--fit-batch", 65536, "--writers", 1),),
    "batch-65536-writers-4": (("--workers", 2, "--fit-batch", 65536, "--writers", 4),),
    "ranks": tuple(("--workers", 0, "--rank", rank, "--world", 2) for rank in (0, 1)),
}
PLACES = ("disk", "s3")
SHARES = {"here": 2, "ranks": 2}  # of the kills, beside 1 of the others: Dask's processes take long to start
KILLS = int(os.environ.get("SKELFIT_KILLS", "16"))
SEED = int(os.environ.get("SKELFIT_KILL_SEED", "0"))

pytestmark = pytest.mark.soak


@dataclass
class Tried:
    """A way to a place, and what has been killed on it."""

    people: Path
    out: str
    logs: Path  # a folder
    ways: tuple[Words, ...]
    environment: dict[str, str]
    runs: int = 0
    folder: str = ""  # of the last run
    killed: list[str] = field(default_factory=list)

    def start(self, out: str, ways: tuple[Words, ...] | None = None) -> list[Program]:
        """The processes of a run; ways: other than usually."""
        words = ["convert", "--labels", self.people / "people.npz", "--source", "camerahmr"]
        words += ["--images", self.people / "images", "--shard-size", SHARD, "--device", "cpu", "--out"]
        cli = programs.SUPPORT / "fault_cli.py"
        self.runs += 1
        self.folder = out
        words += [self.place(out)]
        return [
            programs.start(cli, *words, *way, environment=self.environment, log=self.log(i))
            for i, way in enumerate(ways or self.ways)
        ]

    def log(self, number: int) -> Path:
        """What a process of the last run said."""
        return self.logs / f"{self.runs:03d}-{number}.log"

    def end(self, running: Sequence[Program]) -> list[int]:
        """Wait for the exit codes."""
        for program in running:
            try:
                program.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(program.pid, signal.SIGKILL)
                pytest.fail(f"it did not end: {self.said()}")
        return [program.wait() for program in running]

    def said(self) -> str:
        """What the processes of the last run said."""
        return "\n".join(log.read_text() for log in sorted(self.logs.glob(f"{self.runs:03d}-*.log")))

    def undisturbed(self) -> float:
        """Run once; seconds until the first shard was finished."""
        began, running = time.monotonic(), self.start("undisturbed")
        self.wait_for_shards(1, running)
        first = time.monotonic() - began
        assert self.end(running) == [0] * len(running), self.said()
        return first

    def kill_once(self, chosen: random.Random, first: float) -> str | None:
        """Run with a kill, and again until it is complete. None where the run had ended before the kill.

        first: seconds until there is a shard; some are killed before. It is continued in the same way or in this
        process, as both must give the same bytes.
        """
        out = f"killed-{self.runs:03d}"
        running, shards = self.start(out), chosen.randrange(-3, PEOPLE // SHARD)
        if shards < 0:
            time.sleep(chosen.uniform(0, first))
        else:
            self.wait_for_shards(shards, running)
            time.sleep(chosen.uniform(0, 0.3))
        victims = [process for program in running for process in family(program)]
        if not victims:
            return None
        victim = chosen.choice(victims)
        self.killed.append(f"{role_of(victim)} with {len(finished(self.place(out)))} shards")
        victim.kill()
        again = chosen.choice((self.ways, WAYS["here"]))
        for _ in range(RERUNS):
            if self.end(running) == [0] * len(running):
                return out
            # At once: workers of a client that was killed may still be there.
            running = self.start(out, again)
        pytest.fail(f"{self.killed[-1]}: {RERUNS} reruns were not enough: {self.said()}")

    def wait_for_shards(self, count: int, running: Sequence[Program]) -> None:
        """Wait until so many shards are finished, or the run."""
        while len(finished(self.place(self.folder))) < count and any(p.poll() is None for p in running):
            time.sleep(0.05)

    def place(self, out: str) -> str:
        """The address of an output folder."""
        return f"{self.out}/{out}"


def listed(out: str) -> list[UPath]:
    """The files of a folder; none where it is not there yet."""
    folder = UPath(out)
    if hasattr(folder.fs, "invalidate_cache"):
        folder.fs.invalidate_cache()
    return [path for path in folder.iterdir() if path.name.endswith(FINAL)] if folder.exists() else []


def finished(out: str) -> list[str]:
    """The markers of a folder."""
    return [path.name for path in listed(out) if path.name.endswith(".done.json")]


def bytes_of(out: str) -> dict[str, str]:
    """sha256 of each file of the shards, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in listed(out)}


def family(program: Program) -> list[psutil.Process]:
    """The processes of a program that run: itself, Dask's nannies and workers, and writers."""
    if program.poll() is not None:
        return []
    try:
        itself = psutil.Process(program.pid)
        return sorted([itself, *itself.children(recursive=True)], key=lambda process: process.pid)
    except psutil.NoSuchProcess:
        return []


def role_of(process: psutil.Process) -> str:
    """What a process is for."""
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return "a process that has just ended"
    for word, role in (("writer_process", "writer"), ("spawn_main", "worker"), ("tracker", "tracker")):
        if word in line:
            return role
    return "client"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label file and its images."""
    folder = tmp_path_factory.mktemp("people")
    write_labels(folder / "people.npz", PEOPLE)
    write_images(folder / "images", PEOPLE, 64)
    return folder


@pytest.fixture(scope="module")
def expected(people: Path) -> dict[str, str]:
    """The bytes of a run in one process, onto a disk, to which nothing happened."""
    job = Tried(people, str(people / "out"), people, WAYS["here"], {})
    job.undisturbed()
    return bytes_of(job.place("undisturbed"))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_kills(
    way: str,
    place: str,
    people: Path,
    expected: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    server = request.getfixturevalue("s3") if place == "s3" else None
    environment = DELAY | spawned.REAL | (server.environment if server else {})
    job = Tried(people, server.folder("out") if server else str(tmp_path), tmp_path, WAYS[way], environment)
    turns = [(each, to) for to in PLACES for each in WAYS for _ in range(SHARES.get(each, 1))]
    kills = sum(turns[turn % len(turns)] == (way, place) for turn in range(KILLS))
    chosen = random.Random(f"{SEED} {way} {place}")
    first = job.undisturbed()
    assert bytes_of(job.place("undisturbed")) == expected
    late = 0
    while len(job.killed) < kills:
        if (out := job.kill_once(chosen, first)) is not None:
            assert bytes_of(job.place(out)) == expected, job.killed[-1]
        else:
            late += 1
            assert late < 10, "the runs ended before the kills"
    print(f"\n{way}, {place}: {len(job.killed)} kills: {'; '.join(job.killed)}")
