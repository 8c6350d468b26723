"""A long conversion (`make soak`): prints its figures, writes them to soak.json, and fails when one is bad.

1. Pure fit: one single-threaded process per core that only fits.
2. A conversion of as many people by `skelfit convert`: speed against the pure fit, memory of each process over time
   (memory.csv), and the accounts: every row once, no key twice.
3. The same, with random workers killed by SIGKILL: the result has to be the same to the byte.

People are a few thousand of the demo, repeated, without images. With --replayed the fit takes no time: only the second
is done, of as many rows as wanted, to see whether memory stays flat.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from skelfit.bodies.model_set import open_models
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.fitter import Fitter
from skelfit.labels.demo_people import LABELS_NAME, write_demo
from skelfit.labels.readers.registry import read_label_file
from skelfit.resources.catalog import PIPELINES
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_reader import read_rows, read_samples
from tools.replayed_conversion import DISTINCT as REPLAYED

DISTINCT = 4000  # different people
SAMPLE_SECONDS = 1.0
LEAST_SHARE = 0.70  # of the pure fit's speed
MOST_GROWTH_MIB = 64.0  # of any process between the second and the last quarter of a run
MIB = 2**20


def make_labels(folder: Path, rows: int, distinct: int = DISTINCT) -> Path:
    """A label file of `rows` rows, in which so many people come over and over."""
    path = folder / f"soak-{rows}-{distinct}.npz"
    if path.exists():
        return path
    models = open_models()
    write_demo(folder / "people", min(rows, distinct), 0, False, models=models)
    with np.load(folder / "people" / LABELS_NAME) as archive:
        columns = {name: archive[name] for name in archive.files}
    index = np.arange(rows) % len(columns["imgname"])
    columns = {name: column[index] for name, column in columns.items()}
    columns["imgname"] = np.array([f"{i:08d}.jpg" for i in range(rows)])
    np.savez(path, **columns)
    return path


def fit_only(labels: Path, seconds: float, start: Any, speeds: Any) -> None:
    """Fit batches for `seconds`, then put the people per second into a queue."""
    torch.set_num_threads(1)
    config = load_pipeline(PIPELINES.find("hmr-skel")).fit
    fitter = Fitter(open_models(), config)
    batch = read_label_file(labels).rows(0, config.batch or 256)
    pose, betas, transl = (torch.tensor(a) for a in (batch.pose, batch.betas, batch.transl))
    fitter.fit("neutral", pose, betas, transl)
    start.wait()
    began, people = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        fitter.fit("neutral", pose, betas, transl)
        people += len(batch)
    speeds.put(people / (time.perf_counter() - began))


def pure_speed(labels: Path, workers: int, seconds: float) -> float:
    """People/s of as many processes that only fit."""
    context = multiprocessing.get_context("spawn")
    start, speeds = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=fit_only, args=(labels, seconds, start, speeds)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    speed = sum(speeds.get(timeout=600) for _ in processes)
    for process in processes:
        process.join()
    return float(speed)


@dataclass
class Watched:
    """A conversion, and its measurements."""

    labels: Path
    out: Path
    workers: int
    shard_size: int
    module: str = "skelfit.cli"  # whose `main` converts
    samples: list[tuple[float, int, str, int, float]] = field(default_factory=list)  # s, rows, role, pid, MiB
    kills: int = 0
    starts: int = 0
    seconds: float = 0.0

    def run(self, rows: int, kills: int = 0, seed: int = 0) -> None:
        """Convert; `kills` workers are killed at even steps of progress. A run that gives up is started again."""
        chosen, began = random.Random(seed), time.monotonic()
        while not (self.out / "summary.json").exists():
            assert self.starts < 5, "the run gave up time and again"
            self.starts += 1
            with open(self.out.with_suffix(".log"), "a") as log:
                process = subprocess.Popen(self.command(), stdout=log, stderr=log)
            while process.poll() is None:
                done = self.rows_done()
                self.sample(process.pid, time.monotonic() - began, done)
                if self.kills < kills and done >= rows * (self.kills + 0.5) / (kills + 1):
                    self.kill(chosen, process.pid)
                time.sleep(SAMPLE_SECONDS)
            print(f"  {self.out.name}: exit code {process.returncode} after {time.monotonic() - began:.0f} s")
        self.seconds = time.monotonic() - began

    def command(self) -> list[str]:
        words = [
            "convert",
            "--labels",
            self.labels,
            "--source",
            "camerahmr",
            "--out",
            self.out,
            "--device",
            "cpu",
        ]
        words += ["--workers", self.workers, "--shard-size", self.shard_size]
        return [sys.executable, "-c", f"from {self.module} import main; main()", *map(str, words)]

    def rows_done(self) -> int:
        return sum(json.loads(p.read_text())["rows_in"] for p in self.out.glob("*.done.json"))

    def processes(self, client: int) -> Iterator[tuple[str, psutil.Process]]:
        process = psutil.Process(client)
        yield "client and scheduler", process
        for child in process.children(recursive=True):
            if any("spawn_main" in word for word in child.cmdline()):
                yield "worker", child

    def sample(self, client: int, seconds: float, done: int) -> None:
        try:
            for role, process in self.processes(client):
                rss = process.memory_info().rss / MIB
                self.samples.append((round(seconds, 1), done, role, process.pid, round(rss, 1)))
        except psutil.Error:  # it ended while we looked
            return

    def kill(self, chosen: random.Random, client: int) -> None:
        """Kill a worker that converts a shard."""
        busy = set()
        for path in self.out.glob(".*.started.json"):
            try:
                busy.add(int(json.loads(path.read_text())["process"]))
            except (OSError, ValueError):
                continue
        try:
            victims = [p.pid for role, p in self.processes(client) if role == "worker" and p.pid in busy]
        except psutil.Error:
            return
        if victims:
            os.kill(chosen.choice(sorted(victims)), signal.SIGKILL)
            self.kills += 1

    def hashes(self) -> dict[str, str]:
        """Of tars, sidecars and markers."""
        names = ("*.tar", "*.rows.jsonl", "*.done.json")
        paths = sorted(path for name in names for path in self.out.glob(name))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def books(self, tars: bool = True) -> dict[str, Any]:
        """Rows, statuses and keys, counted in the files themselves; tars: False takes the keys of the sidecars."""
        summary = json.loads((self.out / "summary.json").read_text())
        rows, keys = [], []
        for path in sorted(self.out.glob("*.rows.jsonl")):
            for row in read_rows(path):
                rows.append(row["row"])
                if not tars and row["status"] in PUBLISHED:
                    keys.append(row["key"])
        for path in sorted(self.out.glob("*.tar")) if tars else ():
            keys += [key for key, _, _ in read_samples(path)]
        return {
            "rows_in": summary["rows_in"],
            "statuses": summary["statuses"],
            "rows_in_is_their_sum": summary["rows_in"] == sum(summary["statuses"].values()),
            "rows_are_those_of_the_file": rows == list(range(summary["rows_in"])),
            "keys": len(keys),
            "keys_twice": len(keys) - len(set(keys)),
            "people_per_second": summary["people_per_second"],
            "time": summary["time"],
        }

    def memory(self) -> dict[str, Any]:
        """By role and process: the largest RSS (MiB) in each quarter of its life, and the growth over the last half."""
        lives = defaultdict(list)
        for seconds, _, role, pid, mib in self.samples:
            lives[f"{role} {pid}"].append((seconds, mib))
        result = {}
        for name, life in lives.items():
            if len(life) < 8:
                continue
            quarters = [max(mib for _, mib in part) for part in np.array_split(np.array(life), 4)]
            result[name] = {
                "quarters_mib": [float(q) for q in quarters],
                "growth_mib": float(quarters[3] - quarters[1]),
            }
        return result

    def table(self, parts: int = 10) -> list[dict[str, float]]:
        """The memory over time: the largest RSS of the client and of any worker in each part of the run."""
        parted = np.array_split(np.arange(len(self.samples)), parts)
        table = []
        for part in parted:
            seen = [self.samples[i] for i in part]
            line = {"seconds": seen[-1][0], "rows": float(seen[-1][1])}
            for role in ("client and scheduler", "worker"):
                line[role] = max((s[4] for s in seen if s[2] == role), default=float("nan"))
            table.append(line)
        return table


def write_csv(path: Path, run: Watched) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", "rows_done", "role", "pid", "rss_mib"])
        writer.writerows(run.samples)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, help="default: 100,000; with --replayed a million")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--fit-seconds", type=float, default=60)
    parser.add_argument("--replayed", action="store_true", help="a fitter that takes no time; no kills")
    parser.add_argument("--dir", type=Path, default=Path("build/soak"))
    options = parser.parse_args()
    options.rows = options.rows or (1_000_000 if options.replayed else 100_000)
    options.dir.mkdir(parents=True, exist_ok=True)
    figures, checks = replayed(options) if options.replayed else soaked(options)
    figures["checks"] = checks
    (options.dir / "soak.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    for name, good in checks.items():
        print(f"{'good' if good else 'BAD '}  {name}")
    return 0 if all(checks.values()) else 1


Found = tuple[dict[str, Any], dict[str, bool]]  # figures, and checks by name


def soaked(options: argparse.Namespace) -> Found:
    """Pure fit, conversion, and conversion under kills."""
    labels = make_labels(options.dir, options.rows)
    plain, killed = (watched(options, name, labels) for name in ("plain", "killed"))
    pure = pure_speed(labels, options.workers, options.fit_seconds)
    print(f"pure fit: {pure:.1f} people/s")
    figures, checks = converted(options, plain)
    share = figures["end_to_end_people_per_second"] / pure
    figures |= {"pure_fit_people_per_second": pure, "share_of_pure_fit": share}
    checks[f"at least {LEAST_SHARE:.0%} of the pure fit"] = share >= LEAST_SHARE
    if options.kills:
        killed.run(options.rows, options.kills)
        figures["killed"] = {
            "kills": killed.kills,
            "starts": killed.starts,
            "seconds": killed.seconds,
            "books": killed.books(),
        }
        checks[f"{options.kills} workers killed"] = killed.kills == options.kills
        checks["not a byte differs after the kills"] = killed.hashes() == plain.hashes()
    return figures, checks


def replayed(options: argparse.Namespace) -> Found:
    """A conversion whose fit takes no time."""
    labels = make_labels(options.dir, options.rows, REPLAYED)
    return converted(options, watched(options, "replayed", labels, "tools.replayed_conversion"), tars=False)


def watched(options: argparse.Namespace, name: str, labels: Path, module: str = "skelfit.cli") -> Watched:
    """A conversion into an empty folder."""
    shutil.rmtree(options.dir / name, ignore_errors=True)
    (options.dir / f"{name}.log").unlink(missing_ok=True)
    return Watched(labels, options.dir / name, options.workers, options.shard_size, module)


def converted(options: argparse.Namespace, run: Watched, tars: bool = True) -> Found:
    """Convert, and look at speed, books and memory."""
    run.run(options.rows)
    write_csv(options.dir / "memory.csv", run)
    books = run.books(tars)
    figures: dict[str, Any] = {
        "rows": options.rows,
        "workers": options.workers,
        "seconds": run.seconds,
        # Of the whole command: imports, start of workers, summary.
        "end_to_end_people_per_second": options.rows / run.seconds,
        "books": books,
        "memory": run.memory(),
        "memory_over_time": run.table(),
    }
    checks = {
        "rows_in is the sum of the statuses": books["rows_in_is_their_sum"],
        "every row once": books["rows_are_those_of_the_file"] and books["rows_in"] == options.rows,
        "no key twice": books["keys_twice"] == 0,
        "memory flat": all(m["growth_mib"] <= MOST_GROWTH_MIB for m in figures["memory"].values()),
    }
    return figures, checks


if __name__ == "__main__":
    sys.exit(main())
