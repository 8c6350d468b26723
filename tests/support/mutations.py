"""What the tests catch: faults, put into a copy of the project one at a time, each with the tests that must fail.

    python tests/support/mutations.py                     all of them
    python tests/support/mutations.py --only 3 17         some
    python tests/support/mutations.py --tree DIR          with the sources and tests of another checkout
    python tests/support/mutations.py --tests DIR         with the tests of another folder

Prints a table; exits with 1 when a fault escapes, or cannot be made because the source has changed. It is for those who
make the tests faster or fewer: before and after, the same faults have to be caught. The working tree stays as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = "skelfit tools docs examples manifests pipelines shards/README.md *.* Makefile LICENSE".split()
SECONDS = 600  # that the tests of one fault may take
PASSED, FAILED, NO_TESTS = 0, 1, 5  # exit codes of pytest


@dataclass(frozen=True)
class Mutation:
    """A fault: a text that occurs once in a file, what it becomes, and the tests that see it."""

    file: str  # below skelfit/
    old: str
    new: str
    tests: str  # files below tests/
    names: str = ""  # of the tests, as `pytest -k` takes them; '' for all of the files


MUTATIONS = (
    # --- bodies, and what is known of them ---
    Mutation("bodies/ball_joints.py", "torch.stack((a + pi, pi - b, c + pi)", "torch.stack((a + pi, pi + b, c + pi)",
             "bodies/test_continuous_pose.py"),
    Mutation("bodies/keypoint_regressor.py", "off.max() > _MAX_OFF", "off.min() > _MAX_OFF", "bodies/test_keypoint_regressor.py"),
    Mutation("bodies/angle_continuity.py", "flipped_distance[..., dofs].sum(-1) < distance[",
             "flipped_distance[..., dofs].sum(-1) > distance[",
             "conversion/test_sequences.py"),
    Mutation("shards/label_vector.py", "        offset += f.size\n    return parts",
             "        offset += f.shape[0]\n    return parts", "shards/test_shards.py exports/test_skel_cf_export.py"),
    Mutation("learning/cameras.py", "depth = 2 / (side * _off_zero(s, _SMALLEST))", "depth = 1 / (side * _off_zero(s, _SMALLEST))", "learning/test_cameras.py learning/test_losses.py"),
    # --- the fit ---
    Mutation("fitting/baseline/naive_step.py", "torch.diag_embed(damping[:, None] * diagonal + floor)",
             "torch.diag_embed(0 * diagonal + floor)", "fitting/test_reference_solver.py"),
    Mutation("fitting/terms/objective_term.py", "self.residuals(state).square()", "self.residuals(state).abs()",
             "fitting/test_fit.py", "objective_are_those"),
    Mutation("fitting/baseline/naive_objective.py", "limits.weight**0.5 * limits", "limits.weight * limits", "fitting/test_reference.py"),
    Mutation("fitting/backends/backend.py", 'f"skelfit_lanes_{hashlib.sha256(text).hexdigest()[:16]}.h"', '"skelfit_lanes_.h"',
             "fitting/backends/test_backend.py", "edited_header"),
    Mutation("fitting/backends/kernels/moments.py", "(m(x, x) + m(y, y) + m(z, z))", "(m(x, x) + m(y, y))", "fitting/backends/test_vertex_passes.py",
             "definitions"),
    Mutation("fitting/backends/kernels/damped_step.py", "e0 += m(damping, newton.hessian[h, i, i]) + floor", "e0 += floor",
             "fitting/backends/test_damped_step.py", "damped_steps"),
    # Threads go on before the others have written their part of a row.
    Mutation("fitting/backends/kernels/damped_step.py", "        sync()\n        pivot = newton.row[s, i]\n", "        pivot = newton.row[s, i]\n",
             "fitting/backends/test_damped_step.py", "damped_steps and 1x4"),
    # One person ends the steps of the whole group.
    Mutation("fitting/backends/kernels/levenberg_marquardt.py", "if any_positive(going):", "if going[0] > 0.0:", "fitting/backends/test_levenberg_marquardt.py",
             "resting and x1"),
    Mutation("fitting/backends/kernels/joint_priors.py", "weight * m(off, x)", "m(off, x)", "fitting/backends/test_levenberg_marquardt.py",
             "evaluation and joints and x1"),
    # Who fills up the last group is also in another one, and takes its steps twice.
    Mutation("fitting/passes.py", "np.repeat(rows[-1:], short)", "np.repeat(rows[:1], short)", "fitting/backends/test_levenberg_marquardt.py",
             "on_the_batch and x1"),
    Mutation("fitting/terms/shoulder_targets.py", "solution - solution.mean() + 1 / len(near)", "solution", "fitting/test_anatomy.py",
             "joints_are_located"),
    Mutation("fitting/backends/kernels/mesh_alignment.py", "c[4] = m11 - m(a1, b1)", "c[4] = m11",
             "fitting/test_mesh_start.py"),
    # --- labels, images, filters ---
    Mutation("labels/image_names.py", 'path.is_absolute() or ".." in path.parts', "path.is_absolute()",
             "labels/test_image_names.py conversion/test_job.py"),
    Mutation("images/tar_index.py", "if (block := stream.read(_BLOCK)) != bytes(_BLOCK):",
             "if (block := stream.read(_BLOCK)) is None:", "images/test_tar_index.py process/test_faults.py", "cut"),
    Mutation("images/square_crop.py", "scale * (side / 2 - box.y)", "scale * (side / 2 - box.x)", "images/test_square_crop.py"),
    Mutation("labels/filters.py", "np.flatnonzero(seen <= filters.few_keypoints)",
             "np.flatnonzero(seen < filters.few_keypoints)", "labels/test_filters.py"),
    # --- a run, its shards and their books ---
    Mutation("storage/atomic_write.py", "            os.replace(temporary, path)\n",
             "            path.write_bytes(b'')\n            os.replace(temporary, path)\n", "process/test_faults.py",
             "killed_at_any_point"),
    Mutation("storage/locks.py", "fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if", "fcntl.flock(descriptor, fcntl.LOCK_SH | (0 if", "process/test_faults.py", "two_runs"),
    Mutation("conversion/run_plan.py", "if task.name not in finished and (rank is None", "if (rank is None",
             "conversion/test_job.py process/test_faults.py", "second_run or damaged_shard or a_killed_run"),
    Mutation("shards/shard_reader.py", "if size != record.bytes:", "if size is None:", "conversion/test_job.py shards/test_shards.py"),
    Mutation("conversion/row_judgement.py", "excess > limit, lambda", "excess > 10 * limit, lambda",
             "conversion/test_job.py"),
    # Shards are cut from a batch's fits where the one before them began.
    Mutation("conversion/batch_fit.py", "        start = stop\n", "", "executors/test_shard_batches.py", "any_batch"),
    Mutation("conversion/fitted_rows.py", "first += int(frames.sequence.max(initial=-1)) + 1", "first += 0",
             "conversion/test_sequence_job.py", "stay_apart"),
    Mutation("executors/worker_line.py", "if (marker := finished_marker(task)) is not None:", "if (marker := None) is not None:",
             "executors/test_shard_batches.py", "not_done_again"),
    Mutation("executors/shard_writers.py", "self._under_way < self.count + places", "self._under_way < 1000",
             "executors/test_shard_batches.py", "slow_disk"),
    Mutation("executors/dask_worker.py", "    if not begun.tries:\n        secede()", "    secede()",
             "process/test_cluster.py", "has_its_worker_for_itself"),
    Mutation("shards/row_statistics.py", "_image_kind(row) for row in published", '"found" for row in published', "process/test_faults.py",
             "images_of_every_kind"),
    Mutation("conversion/run_status.py", 'state="finished" if complete else "running" if locked else "stopped"',
             'state="finished" if complete else "running"', "conversion/test_status.py"),
    Mutation("config/yaml_dataclasses.py", "            if key in seen:\n", "            if key in seen and deep:\n", "config/test_config.py"),
    # --- processes and clusters ---
    Mutation("cli/interrupts.py", "        code = TERMINATED\n", "        code = INTERRUPTED\n", "process/test_faults.py",
             "client_that_is_ended"),
    Mutation("executors/worker_processes.py", 'host="127.0.0.1"', 'host="0.0.0.0"', "process/test_cluster.py", "only_this_machine"),
    Mutation("executors/dask_worker.py", "        secede()\n", "        pass\n", "process/test_cluster.py",
             "written_while_the_next"),
    Mutation("executors/dask_tasks.py", "{error.allowed_failures + 1} workers died", "{error.allowed_failures} workers died",
             "process/test_cluster.py", "ends_its_workers"),
    Mutation("executors/dask_connection.py", "        if running != __version__:", "        if running is None:",
             "process/test_cluster_connect.py", "same_version or another_skelfit"),
    # --- what is made of shards ---
    Mutation("verification/report/aggregate.py", "clipped = np.clip(a.angles_deg, -_MAX_DEG, _MAX_DEG)", "clipped = a.angles_deg",
             "verification/test_planted_errors.py", "absurd"),
    Mutation("verification/integrity/tar_walk.py", 'if padding.strip(b"\\0"):', "if not padding and size < 0:",
             "verification/test_shard_integrity.py", "each_byte or flipped_bits"),
    Mutation("exports/opensim_files/motion.py", 'as_euler("YXZ")', 'as_euler("YZX")', "exports/test_opensim_export.py"),
    Mutation("bodies/mirrored_dofs.py", "poses[..., list(OTHER_SIDE)] * MIRROR_SIGN.astype(poses.dtype)", "poses[..., list(OTHER_SIDE)]", "exports/test_hsmr_export.py"),
    Mutation("exports/dataset_card/card_facts.py", 'if row["sequence"] is not None:', 'if row["sequence"] is None:', "exports/test_dataset_card.py"),
    # --- training and prediction ---
    Mutation("learning/data/person_stream.py", "return names[part.number :: part.of], ALL", "return names[part.number :], ALL",
             "learning/test_data_loader.py"),
    Mutation("learning/backbones/heatmaps.py", "(labels[..., :2].abs() <= 0.5).all(-1)",
             "(labels[..., :2].abs() <= 1).all(-1)", "learning/test_skel_cf_network.py learning/test_losses.py"),
    Mutation("learning/training/trainer.py", "mean.lerp_(new, 1 - kept)", "mean.lerp_(new, kept)", "learning/test_trainer.py",
             "mean_of_the_weights"),
    Mutation("learning/data/process_group.py", "        return total / self.part.of", "        return total", "learning/test_training_loop.py",
             "two_processes"),
    # --- rules about the sources ---
    Mutation("bodies/angle_continuity.py", "import numpy as np\n", "import click\nimport numpy as np\n", "test_architecture.py"),
    Mutation("verification/report/histogram.py", "import numpy as np\n", "import numpy as np\nimport skelfit.conversion.shard_task\n",
             "test_architecture.py"),
)  # fmt: skip


def copy_of(tree: Path, tests: Path, folder: Path) -> Path:
    """A copy of a checkout, with what has been compiled, and its tests taken from a folder."""
    copy = folder / "tree"
    copy.mkdir()
    for path in (path for name in COPIED for path in tree.glob(name) if name != "*.*" or path.is_file()):
        into = copy / path.relative_to(tree)
        into.parent.mkdir(exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, into)
    shutil.copytree(tests, copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def run_tests(copy: Path, mutation: Mutation) -> int:
    """pytest's exit code for the tests of a fault."""
    files = [f"tests/{name}" for name in mutation.tests.split()]
    names = ["-k", mutation.names] if mutation.names else []
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not gpu",  # those of `make soak`, too
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *files,
        *names,
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return FAILED
    if done.returncode not in (PASSED, FAILED):
        print(done.stdout[-1500:], done.stderr[-500:], sep="\n", file=sys.stderr)
    return done.returncode


def tried(copy: Path, mutation: Mutation) -> str:
    """What becomes of a fault: 'caught' when a test fails that passes without it."""
    path = copy / "skelfit" / mutation.file
    text, state = path.read_text("utf-8"), path.stat()
    if text.count(mutation.old) != 1:
        return f"NOT MADE: its text occurs {text.count(mutation.old)} times"
    path.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    try:
        code = run_tests(copy, mutation)
    finally:
        path.write_text(text, "utf-8")
        os.utime(
            path, ns=(state.st_atime_ns, state.st_mtime_ns)
        )  # or all that is compiled would be compiled again
    return {PASSED: "ESCAPED", FAILED: "caught", NO_TESTS: "NO TESTS"}.get(
        code, f"NOT RUN: pytest's code {code}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the faults, from 1 on")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to copy")
    parser.add_argument("--tests", type=Path, help="its tests; the checkout's own, if not given")
    parser.add_argument(
        "--without", action="store_true", help="run the tests without the faults: all must pass"
    )
    options = parser.parse_args()
    chosen = options.only or range(1, len(MUTATIONS) + 1)
    good = "ESCAPED" if options.without else "caught"
    bad = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = copy_of(options.tree, options.tests or options.tree / "tests", Path(folder))
        for number in chosen:
            mutation, began = MUTATIONS[number - 1], time.monotonic()
            if options.without:
                mutation = replace(mutation, new=mutation.old)
            found = tried(copy, mutation)
            bad += found != good
            shown = "passed" if options.without and found == good else found
            seconds, change = time.monotonic() - began, " ".join(mutation.new.split())
            print(f"{number:2}  {shown:8} {seconds:5.0f} s  {mutation.file:22} {change:.70}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} {'passed' if options.without else 'caught'}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
