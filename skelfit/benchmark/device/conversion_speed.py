"""Speed of `skelfit convert` from label files to shards, with and without images."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from skelfit.bodies.model_set import ModelSet
from skelfit.labels.demo_people import write_demo
from skelfit.storage.locations import Location

_SECONDS = 240.0  # limit of a command


def measure_conversion(
    models: ModelSet, folder: Location | None, pipeline: Path, device: str, people: int
) -> list[dict[str, Any]]:
    """People per second of `skelfit convert` on the demo's people; folder: of the models, if one was given."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="skelfit-report-") as folder_name:
        labels = write_demo(Path(folder_name) / "demo", people, models=models)
        images = labels.parent / "images"
        for name, more in (("labels only", []), ("with images", ["--images", str(images)])):
            out = Path(folder_name) / name.replace(" ", "-")
            command = [sys.executable, "-m", "skelfit", "convert", "--labels", str(labels), "--out", str(out)]
            command += ["--device", device, "--pipeline", str(pipeline), *more]
            command += ["--models", str(folder)] if folder else []
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
            seconds = time.perf_counter() - started
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
            summary = json.loads((out / "summary.json").read_text("utf-8"))
            rows.append(
                {
                    "what": name,
                    "people": people,
                    "seconds": seconds,  # with the start of the program
                    "people_per_second": summary["people_per_second"],  # without
                    "time": summary["time"],
                }
            )
    return rows
