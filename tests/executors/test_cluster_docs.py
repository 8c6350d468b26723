"""The blocks of docs/clusters.md and the last one of docs/convert.md, run as written: no SLURM, no AWS, few people."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from camerahmr_file import camerahmr_arrays
from programs import shell_words

ROOT = Path(__file__).parents[2]
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "clusters.md").read_text(), flags=re.M)[1:]
SECTIONS += (ROOT / "docs" / "convert.md").read_text().split("\n## ")[-1:]
PEOPLE = 40
MANIFEST = f"""name: demo
labels: [{{path: demo/demo-release.npz, source: camerahmr}}]
demo: {{people: {PEOPLE}, images: false}}
"""
SBATCH = """#!/bin/bash
# The job has an output of its own: who submits waits for the end of ours.
last=$(sed -n 's/^#SBATCH --array=0-//p' "${@: -1}")
if [ -n "$last" ]; then
    for ((i = 0; i <= last; i++)); do
        SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=$((last + 1)) bash "${@: -1}" >> ranks.out 2>&1 &
    done
    wait
else
    cp "$1" "job.$$"
    bash "job.$$" > "job.$$.log" 2>&1 &
fi
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
kill "$@"
"""


def blocks() -> dict[str, str]:
    """The code blocks that are to run, by section."""
    found: dict[str, str] = {}
    for section in SECTIONS:
        code = re.findall(r"(<!-- not run[^\n]*-->\n)?```(bash|python)\n(.*?)```", section, flags=re.S)
        run = [(language, text) for skipped, language, text in code if not skipped]
        assert len(run) <= 1, "one block per section: they are named by it"
        if run:
            (language, text), title = run[0], section.splitlines()[0]
            found[title] = (
                text
                if language == "bash"
                else f"cat > script.py <<'END'\n{text}END\n.venv/bin/python script.py\n"
            )
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout with a small demo, with its programs and those of SLURM."""
    folder = tmp_path_factory.mktemp("checkout")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = shell_words(ROOT)
    scripts = {"sbatch": SBATCH, "scancel": SCANCEL}
    called = {"skelfit": "-m skelfit", "dask": "-m dask", "moto_server": "-m moto.server", "python": ""}
    for name, arguments in called.items():
        scripts[name] = f'#!/bin/bash\nexec {python} {arguments} "$@"\n'
    for name, script in scripts.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    (folder / "manifests").mkdir()
    (folder / "manifests" / "demo.yaml").write_text(MANIFEST)
    # What `make convert` reads; its environment is there.
    for name in ("pipelines", "Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv" / ".installed").touch()
    (folder / "data" / "coco").mkdir(parents=True)
    np.savez(folder / "data" / "coco" / "coco-release.npz", **camerahmr_arrays(PEOPLE))
    return folder


def run(text: str, place: Path) -> str:
    """Run a block in a session of its own, which ends with it; returns what it says."""
    path = f"{place / '.venv' / 'bin'}:{os.environ['PATH']}"
    log = place / "log"
    # Not a pipe: what the block leaves running would keep it open.
    with open(log, "wb") as file:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=place,
            env={**os.environ, "PATH": path, "XDG_CACHE_HOME": str(place / "cache")},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        code = process.wait(150)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert code == 0, log.read_text()
    return log.read_text()


def assert_runs_in_a_store(text: str, place: Path) -> None:
    """Run the block on a port that is free; the server is gone at its end, and a report is left."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "make convert SUBSET=coco OUT=s3://" in text and "5055" in text
    said = run(text.replace("5055", str(port)), place)
    assert f"{PEOPLE} rows in" in said and "coco in s3://skelfit/coco: finished" in said
    assert "not-a-secret" not in said
    report = json.loads((place / "coco-report.json").read_text())
    assert report["verdict"] == "good" and not list(place.glob("s3*"))


@pytest.mark.parametrize("title", blocks())
def test_a_block_runs_as_written(title: str, place: Path) -> None:
    (place / "scheduler.json").unlink(missing_ok=True)
    if title == "Object stores":
        assert_runs_in_a_store(blocks()[title], place)
        return
    (out,) = re.findall(r"shards/\w+", blocks()[title])
    assert f"{PEOPLE} rows in" in run(blocks()[title], place)
    assert json.loads((place / out / "summary.json").read_text())["rows_in"] == PEOPLE
    if "--rank" in blocks()[title]:
        assert len(list((place / out).glob(".run.*-of-2.json"))) == 2
        assert len(list((place / out).glob("*.tar"))) == 4
    if title == "SLURM":
        scripts = [path.read_text() for path in place.glob("job.*") if path.suffix != ".log"]
        assert len(scripts) == 2
        for wanted in ("#SBATCH --gres=gpu:1", "#SBATCH --cpus-per-task=4", "--nthreads 1 ", " tls://"):
            assert all(wanted in script for script in scripts)
