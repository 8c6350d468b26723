"""SIGKILL at random moments, of random processes, in each way that a run can go; then a rerun has the same bytes.

All ways together: in this process, by Dask with batches and writers of several sizes, by ranks, onto a disk and onto
S3. `make soak` kills once in each; SKELFIT_KILLS=50 says how often in all, SKELFIT_KILL_SEED which moments.
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
from job_fakes import write_images, write_labels
from programs import Program
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
KILLS = max(int(os.environ.get("SKELFIT_KILLS", "0")), len(WAYS) * len(PLACES))
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
    killed: list[str] = field(default_factory=list)

    def start(self, out: str) -> list[Program]:
        """The processes of a run."""
        words = ["convert", "--labels", self.people / "people.npz", "--source", "camerahmr"]
        words += ["--images", self.people / "images", "--shard-size", SHARD, "--device", "cpu", "--out", out]
        cli = programs.SUPPORT / "fault_cli.py"
        self.runs += 1
        return [
            programs.start(cli, *words, *way, environment=self.environment, log=self.log(i))
            for i, way in enumerate(self.ways)
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
        return "\n".join(self.log(i).read_text() for i in range(len(self.ways)))

    def undisturbed(self) -> tuple[float, float]:
        """Run once; seconds until the first shard was finished, and until the end."""
        out, began, first = f"{self.out}/undisturbed", time.monotonic(), 0.0
        running = self.start(out)
        while any(program.poll() is None for program in running):
            if not first and any(path.name.endswith(".done.json") for path in listed(out)):
                first = time.monotonic() - began
            time.sleep(0.05)
        assert self.end(running) == [0] * len(running), self.said()
        return first, time.monotonic() - began

    def kill_once(self, chosen: random.Random, first: float, end: float) -> bool:
        """Run with a kill, and again until it is complete. False where the run had ended before the kill."""
        out = f"{self.out}/{len(self.killed):03d}"
        moment = chosen.uniform(0, first) if chosen.random() < 0.15 else chosen.uniform(first, end)
        running = self.start(out)
        time.sleep(moment)
        victims = [process for program in running for process in family(program)]
        if not victims:
            return False
        victim = chosen.choice(victims)
        self.killed.append(f"{role_of(victim)} at {moment:.2f} s of {end:.2f}")
        victim.kill()
        for _ in range(RERUNS):
            if self.end(running) == [0] * len(running):
                break
            # At once: workers of a client that was killed may still be there.
            running = self.start(out)
        else:
            pytest.fail(f"{self.killed[-1]}: {RERUNS} reruns were not enough: {self.said()}")
        return True


def listed(out: str) -> list[UPath]:
    """The files of a folder; none where it is not there yet."""
    folder = UPath(out)
    if hasattr(folder.fs, "invalidate_cache"):
        folder.fs.invalidate_cache()
    return [path for path in folder.iterdir() if path.name.endswith(FINAL)] if folder.exists() else []


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
    return bytes_of(f"{job.out}/undisturbed")


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
    s3 = request.getfixturevalue("s3") if place == "s3" else None
    environment = DELAY | (s3.environment if s3 else {})
    job = Tried(people, s3.folder("out") if s3 else str(tmp_path), tmp_path, WAYS[way], environment)
    number = list(WAYS).index(way) * len(PLACES) + PLACES.index(place)
    ways = len(WAYS) * len(PLACES)
    kills = KILLS // ways + (number < KILLS % ways)
    chosen = random.Random(SEED * ways + number)
    first, end = job.undisturbed()
    assert bytes_of(f"{job.out}/undisturbed") == expected
    late = 0
    while len(job.killed) < kills:
        if not job.kill_once(chosen, first, end):
            late += 1
            assert late < 10, "the runs ended before the kills"
            continue
        assert bytes_of(f"{job.out}/{len(job.killed) - 1:03d}") == expected, job.killed[-1]
    print(f"\n{way}, {place}: {len(job.killed)} kills: {'; '.join(job.killed)}")
