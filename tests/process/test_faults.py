"""Faults, with real processes, signals and file systems.

After each: no half-written file under its own name, no row lost or doubled, a clear message, and a rerun that ends in
the same bytes as a run to which nothing happened.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import programs
import psutil
import pytest
from cluster_by_hand import by_hand
from job_fakes import hashes, picture, write_labels
from programs import Program

from skelfit.conversion.run_status import read_status
from skelfit.images.image_bytes import MAX_BYTES
from skelfit.shards.shard_reader import read_rows, read_samples

SUPPORT = Path(__file__).parents[1] / "support"
PEOPLE, SHARD = 40, 8
FINAL = (".tar", ".rows.jsonl", ".done.json")


@dataclass
class Job:
    """A conversion of the test's people to a folder, as a command."""

    folder: Path  # with people.npz and images/
    out: Path
    images: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *options: object) -> list[str]:
        words = [
            "convert",
            "--labels",
            self.folder / "people.npz",
            "--source",
            "camerahmr",
            "--out",
            self.out,
        ]
        words += ["--images", self.folder / "images"] if self.images else []
        words += ["--shard-size", SHARD, "--device", "cpu", *options]
        return [str(SUPPORT / "fault_cli.py"), *map(str, words)]

    def start(self, *options: object, limits: Sequence[tuple[int, int]] = ()) -> Program:
        """Start it; --workers 0 unless an option says where it runs."""
        if not {"--workers", "--scheduler"} & set(options):
            options = ("--workers", 0, *options)
        options = (*options, "--max-wait", 5)  # a busy machine starts a worker late
        return programs.start(*self.command(*options), environment=self.environment, limits=limits)

    def end(self, process: Program) -> tuple[int, str, str]:
        """Exit code, output and errors of the program."""
        try:
            said, errors = process.communicate()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"the program did not end:\n{process.communicate()[1]}")
        assert process.returncode is not None
        return process.returncode, said, errors

    def run(self, *options: object, limits: Sequence[tuple[int, int]] = ()) -> tuple[int, str, str]:
        """Start it and wait for its end."""
        return self.end(self.start(*options, limits=limits))

    def done(self) -> list[str]:
        """The names of the finished shards."""
        return sorted(path.name[: -len(".done.json")] for path in self.out.glob("*.done.json"))

    def wait_for(self, shards: int, process: Program) -> None:
        """Wait until so many shards are finished and another is begun."""

        def ready() -> bool:
            begun = {p.name[1:].split(".")[0] for p in self.out.glob(".*.started.json")} - set(self.done())
            return len(self.done()) >= shards and bool(begun)

        self.wait_until(ready, process)

    def wait_until(self, what: object, process: Program) -> None:
        deadline = time.monotonic() + programs.SECONDS
        while not what():  # type: ignore[operator]
            if process.poll() is not None or time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                pytest.fail(
                    f"it ended before the fault could happen, or did nothing:\n{process.communicate()}"
                )
            time.sleep(0.01)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label file and its images; `left` and `left-images` are what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("people")
    write_labels(folder / "people.npz", PEOPLE)
    (folder / "images" / "train").mkdir(parents=True)
    for i in range(PEOPLE):
        (folder / "images" / "train" / f"{i:06d}.jpg").write_bytes(picture(i, 256))
    for name, images in (("left", False), ("left-images", True)):
        code, _, errors = Job(folder, folder / name, images).run()
        assert code == 0, errors
    return folder


def make_job(people: Path, tmp_path: Path, **options: object) -> Job:
    """A job with its own copy of the labels, and the same images."""
    (tmp_path / "people").mkdir()
    shutil.copy(people / "people.npz", tmp_path / "people" / "people.npz")
    (tmp_path / "people" / "images").symlink_to(people / "images")
    return Job(tmp_path / "people", tmp_path / "out", **options)  # type: ignore[arg-type]


def undisturbed(job: Job, people: Path) -> dict[str, str]:
    """The files of a run to which nothing happened."""
    return hashes(people / ("left-images" if job.images else "left"))


def assert_whole(job: Job, people: Path) -> None:
    """Every file under its own name is as an undisturbed run has it."""
    expected = undisturbed(job, people)
    for name, found in hashes(job.out).items():
        if name.endswith(FINAL) and not name.startswith("."):
            assert found == expected[name], name


def assert_finishes(job: Job, people: Path) -> None:
    """A rerun ends well: with the same bytes, nothing left behind, and every row once."""
    code, _, errors = job.run()
    assert code == 0, errors
    assert_complete(job, people)


def assert_complete(job: Job, people: Path) -> None:
    assert hashes(job.out) == undisturbed(job, people)
    summary = json.loads((job.out / "summary.json").read_text())
    assert summary["rows_in"] == sum(summary["statuses"].values()) == PEOPLE
    rows = [row["row"] for path in sorted(job.out.glob("*.rows.jsonl")) for row in read_rows(path)]
    assert rows == list(range(PEOPLE))
    keys = [key for path in sorted(job.out.glob("*.tar")) for key, _, _ in read_samples(path)]
    assert len(keys) == len(set(keys)) == summary["rows_out"]


def begun_by(job: Job) -> int:
    """The process that works on a shard."""
    for path in job.out.glob(".*.started.json"):
        try:
            return int(json.loads(path.read_text())["process"])
        except (OSError, ValueError):
            continue
    return 0


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive, alive


# --- processes that die ---


def test_a_worker_that_is_killed_costs_nothing(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path, images=True, environment={"FAULT_DELAY": "0.2"})
    process = job.start("--workers", 1, "--writers", 1, "--fit-batch", 16)
    job.wait_for(1, process)
    job.wait_until(lambda: begun_by(job), process)
    victim = begun_by(job)
    assert victim not in (0, process.pid)
    os.kill(victim, signal.SIGKILL)
    code, said, errors = job.end(process)
    assert code == 0, errors
    assert "40 rows in" in said
    assert_complete(job, people)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_client_that_is_ended_takes_its_workers_with_it(
    people: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    job = make_job(people, tmp_path, images=True, environment={"FAULT_DELAY": "0.2"})
    process = job.start("--workers", 1, "--writers", 1)
    job.wait_for(1, process)
    job.wait_until(lambda: begun_by(job), process)
    worker = psutil.Process(begun_by(job))
    assert worker.pid != process.pid
    family = [worker, *worker.children(recursive=True)]
    assert any("writer_process" in " ".join(member.cmdline()) for member in family)
    process.send_signal(number)
    found, _, errors = job.end(process)
    assert found == code, errors
    if number != signal.SIGKILL:
        assert (
            errors.strip().splitlines()[-1]
            == "interrupted; the same command goes on from the finished shards"
        )
    assert_whole(job, people)
    assert not (job.out / "summary.json").exists()
    # At once: its workers may still be there.
    assert_finishes(job, people)
    assert_all_end(family)
    assert_complete(job, people)


def test_a_scheduler_that_is_killed_ends_the_run_with_a_message(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path, images=True, environment={"FAULT_DELAY": "0.2"})
    with by_hand(tmp_path) as cluster:
        cluster.scheduler()
        cluster.worker("worker", FAULT_DELAY="0.2")
        process = job.start("--scheduler", cluster.file)
        job.wait_for(1, process)
        cluster.stop("scheduler", signal.SIGKILL)
        code, _, errors = job.end(process)
        assert code == 2, errors
        # The last word is ours; Dask may have logged before it how it lost the connection.
        assert "lost the scheduler; the finished shards are kept" in errors.strip().splitlines()[-1]
        assert_whole(job, people)
    assert_finishes(job, people)


def test_ranks_share_a_run_and_one_that_dies_is_named(people: Path, tmp_path: Path) -> None:
    """Both begin at once, on nothing. The other one ends well, and the dead one is started again."""
    job = make_job(people, tmp_path, environment={"FAULT_DELAY": "0.4"})
    first, second = (job.start("--rank", number, "--world", 2) for number in (0, 1))
    job.wait_until(lambda: "people-000001" in job.done(), second)
    os.killpg(second.pid, signal.SIGKILL)
    assert job.end(second)[0] == -9
    code, said, errors = job.end(first)
    assert code == 0, errors
    assert "rank 0 of 2 is done (3 shards); 1 shard of other ranks is not finished" in said
    assert f"next: skelfit status {job.out}" in said
    assert [rank.state for rank in read_status(job.out).ranks] == ["finished", "dead"]
    code, said, errors = job.run("--rank", 1, "--world", 2)
    assert code == 0 and "40 rows in, " in said, errors
    assert_complete(job, people)


def test_a_run_may_be_killed_at_any_point(tmp_path: Path) -> None:
    """At each of its changes to the folder, and in the middle of its continuation as well."""
    code, said, errors = programs.run(SUPPORT / "crash_points.py", tmp_path)
    assert code == 0, errors
    assert int(said) > 40, "fewer changes than three shards take"


# --- resources that run out ---


def test_a_shard_without_memory_fails_alone(people: Path, tmp_path: Path) -> None:
    """The limit of the operating system: Python is told, the process lives."""
    job = make_job(people, tmp_path, environment={"FAULT_HUNGRY": "people-000002"})

    code, _, errors = job.run(limits=[(resource.RLIMIT_AS, programs.address_space() + (1 << 30))])
    assert code == 1, errors
    assert "shard people-000002 failed: " in errors and "MemoryError" in errors
    assert "1 of 5 shards failed; the same command tries them again" in errors
    assert job.done() == [f"people-{i:06d}" for i in (0, 1, 3, 4)]
    assert_whole(job, people)
    job.environment.clear()
    assert_finishes(job, people)


@pytest.mark.soak
def test_a_worker_without_memory_is_replaced_until_it_is_too_much(people: Path, tmp_path: Path) -> None:
    """Dask's limit: the nanny ends the process, as the kernel would."""
    gigabytes = psutil.virtual_memory().total / 2**30
    limit = {"DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": f"{1.5 / gigabytes:.4f}"}
    for name in ("TARGET", "SPILL", "PAUSE"):
        limit[f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}"] = "false"
    job = make_job(people, tmp_path, environment={"FAULT_HUNGRY": "people-000002", **limit})
    code, _, errors = job.run("--workers", 1)
    assert code == 1, errors
    assert "shard people-000002 failed: 2 workers died while they had it" in errors
    assert "out of memory, or stopped from outside" in errors
    assert job.done() == [f"people-{i:06d}" for i in (0, 1, 3, 4)]
    assert_whole(job, people)
    job.environment.clear()
    assert_finishes(job, people)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of a size at a folder; the test is skipped where we may not mount one."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(
            f"mount: {done.stderr.strip() or 'not allowed'} (a limit on file sizes is tested everywhere)"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path, images=True)
    with small_disk(job.out, "1500k"):
        code, _, errors = job.run()
        assert code == 1, errors
        assert "No space left on device" in errors and "Traceback" not in errors
        assert "shards failed; the same command tries them again" in errors
        assert 0 < len(job.done()) < 5
        assert_whole(job, people)
        # What was begun and could not be written does not fill the disk any longer.
        assert not list(job.out.glob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", job.out], check=True)
        assert_finishes(job, people)


def test_a_disk_that_is_full_from_the_start(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path)
    with small_disk(job.out, "16k"):
        code, _, errors = job.run()
        assert code == 2 and len(errors.strip().splitlines()) == 1, errors
        assert errors.startswith("Error: ") and "No space left on device" in errors
        subprocess.run(["mount", "-o", "remount,size=64m", job.out], check=True)
        assert_finishes(job, people)


def test_a_limit_on_file_sizes(people: Path, tmp_path: Path) -> None:
    """As a quota: the write fails in the middle of a tar. Needs no right to mount."""
    job = make_job(people, tmp_path, images=True)
    tars = sorted(path.stat().st_size for path in (people / "left-images").glob("*.tar"))
    assert tars[0] < tars[-1]

    code, _, errors = job.run(limits=[(resource.RLIMIT_FSIZE, tars[-1] - 1)])
    assert code == 1, errors
    assert "File too large" in errors and "Traceback" not in errors
    assert 0 < len(job.done()) < 5
    assert_whole(job, people)
    assert not list(job.out.glob(".*.tmp"))
    assert_finishes(job, people)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be made or removed in a folder, not even by root."""
    if os.geteuid():
        folder.chmod(0o555)
    elif (done := subprocess.run(["chattr", "+i", folder], capture_output=True, text=True)).returncode:
        pytest.skip(f"root may write everywhere, and chattr says: {done.stderr.strip()}")
    try:
        yield
    finally:
        if os.geteuid():
            folder.chmod(0o755)
        else:
            subprocess.run(["chattr", "-i", folder], check=True)


def test_a_folder_that_is_read_only(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path)
    job.out.mkdir()
    with read_only(job.out):
        code, _, errors = job.run()
        assert code == 2 and len(errors.strip().splitlines()) == 1, errors
        assert str(job.out) in errors and "cannot be written to" in errors
    assert_finishes(job, people)


def test_a_folder_that_becomes_read_only(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path, images=True, environment={"FAULT_DELAY": "0.2"})
    process = job.start()
    job.wait_for(2, process)
    with read_only(job.out):
        code, _, errors = job.end(process)
        assert code == 1, errors
        assert "cannot be written" in errors and "Traceback" not in errors
        assert_whole(job, people)
    assert_finishes(job, people)


# --- inputs that change, and runs that meet ---


def test_a_label_file_that_is_replaced_during_a_run(people: Path, tmp_path: Path) -> None:
    """The run ends as it began; the next one sees that this is another file."""
    job = make_job(people, tmp_path, environment={"FAULT_DELAY": "0.2"})
    process = job.start()
    job.wait_for(1, process)
    other = tmp_path / "other.npz"
    with np.load(write_labels(other, PEOPLE)) as archive:
        columns = dict(archive)
    columns["trans_cam"] += 1
    np.savez(other, **columns)
    os.replace(other, job.folder / "people.npz")
    code, _, errors = job.end(process)
    assert code == 0, errors
    assert_complete(job, people)
    code, _, errors = job.run()
    assert code == 2 and len(errors.strip().splitlines()) == 1, errors
    assert "another configuration" in errors and "labels[0].sha256" in errors
    assert_complete(job, people)
    code, _, errors = job.run("--overwrite")
    assert code == 0, errors
    assert hashes(job.out) != undisturbed(job, people)


def test_two_runs_at_one_output(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path, environment={"FAULT_DELAY": "0.2"})
    first = job.start()
    job.wait_for(1, first)
    first.send_signal(signal.SIGSTOP)  # or it may be done before the other has begun
    code, _, errors = job.run()
    first.send_signal(signal.SIGCONT)
    assert code == 2 and len(errors.strip().splitlines()) == 1, errors
    assert f"another run is writing here (process {first.pid} on " in errors
    code, _, errors = job.end(first)
    assert code == 0, errors
    assert_complete(job, people)


def test_images_of_every_kind(people: Path, tmp_path: Path) -> None:
    """Missing, cut short, empty, no image at all, huge, a folder, unreadable: each is a reason of its row."""
    job = make_job(people, tmp_path, images=True)
    (job.folder / "images").unlink()
    folder = shutil.copytree(people / "images", job.folder / "images") / "train"
    good = [row for row in range(PEOPLE) if row not in (3, 5)]  # the others do not enter the shards
    faults = dict(zip(good, ("missing", "cut", "empty", "text", "huge", "folder", "ring"), strict=False))
    for row, fault in faults.items():
        path = folder / f"{row:06d}.jpg"
        data = path.read_bytes()
        path.unlink()
        if fault in ("cut", "empty", "text"):
            path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"404 not found"}[fault])
        elif fault == "huge":
            with open(path, "wb") as file:
                file.truncate(MAX_BYTES + 1)
        elif fault == "folder":
            path.mkdir()
        elif fault == "ring":
            path.symlink_to(path)
    code, said, errors = job.run()
    assert code == 0, errors
    rows = {row["row"]: row for path in job.out.glob("*.rows.jsonl") for row in read_rows(path)}
    found = {faults[row]: rows[row]["reason"] for row in faults}
    assert found == {
        "missing": "image_missing",
        "cut": "image_damaged",
        "empty": "image_damaged",
        "text": "image_damaged",
        "huge": "image_too_large: 67,108,865 bytes, at most 67,108,864 are read",
        "folder": "image_unreadable: a folder, not a regular file",
        "ring": "image_unreadable: Too many levels of symbolic links",
    }
    summary = json.loads((job.out / "summary.json").read_text())
    expected = {
        "found": len(good) - 7,
        "missing": 1,
        "unreadable": 2,
        "damaged": 3,
        "too_large": 1,
        "no_crop": 0,
        "unknown_pixels": 0,
    }
    assert summary["images"] == expected
    assert summary["rows_out"] == len(good), "an image does not decide about its person"
    assert "people without an image" in said
    for number, fault in faults.items():
        image = folder / f"{number:06d}.jpg"
        if fault == "folder":
            image.rmdir()
        else:
            image.unlink(missing_ok=True)
        shutil.copy(people / "images" / "train" / image.name, folder)
    code, _, errors = job.run("--overwrite")
    assert code == 0, errors
    # A finished shard does not look at its images again; --overwrite does.
    assert_complete(job, people)


def test_a_tar_of_images_that_is_cut_short(people: Path, tmp_path: Path) -> None:
    """One line; people whose image is lost are published without it. The whole tar gives what the folder gives."""
    job = make_job(people, tmp_path, images=True)
    tar = job.folder / "images"
    tar.unlink()
    with tarfile.open(tar, "w") as archive:
        for path in sorted((people / "images").rglob("*.jpg")):
            archive.add(path, path.relative_to(people / "images"))
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    code, said, errors = job.run()
    assert code == 0, errors
    assert said.count(f"{tar}: expected a whole tar, not compressed, found ") == 1
    rows = {row["row"]: row for path in job.out.glob("*.rows.jsonl") for row in read_rows(path)}
    lost = [rows[i]["reason"] for i in range(PEOPLE) if rows[i]["image"] is False]
    found = [i for i in range(PEOPLE) if rows[i]["image"]]
    assert 15 < len(found) < 25 and max(found) < min(i for i in rows if rows[i]["image"] is False)
    assert set(lost) <= {"image_missing", "image_damaged"} and lost.count("image_damaged") <= 1
    summary = json.loads((job.out / "summary.json").read_text())
    assert summary["rows_out"] == len(found) + len(lost) == PEOPLE - 2
    tar.write_bytes(whole)
    code, _, errors = job.run("--overwrite")
    assert code == 0, errors
    assert_complete(job, people)


def test_a_tar_of_images_that_is_replaced_during_a_run(people: Path, tmp_path: Path) -> None:
    job = make_job(people, tmp_path, images=True, environment={"FAULT_DELAY": "0.2"})
    tar = job.folder / "images"
    tar.unlink()
    with tarfile.open(tar, "w") as archive:
        archive.add(people / "images" / "train", "train")
    process = job.start()
    job.wait_for(1, process)
    shutil.copy(tar, tmp_path / "copy")
    os.replace(tmp_path / "copy", tar)  # the same bytes, of another time
    code, _, errors = job.end(process)
    assert code == 1, errors
    assert f"{tar}: expected the tar that was indexed" in errors and "Traceback" not in errors
    assert 1 <= len(job.done()) < 5
    assert_whole(job, people)
    assert_finishes(job, people)
