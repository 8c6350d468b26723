"""The log of a training: scalars for TensorBoard, and the same as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skelfit.errors import SkelfitError
from skelfit.storage.atomic_write import atomic_write

LOG_NAME = "log.jsonl"
BOARD_NAME = "tensorboard"


class TrainingLog:
    """The log in a training's folder, from a step on; later lines of an interrupted run are removed."""

    def __init__(self, out: Path, step: int) -> None:
        """Raises SkelfitError without TensorBoard, OutputError."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SkelfitError(f"training needs: pip install 'skelfit[train]' ({error})") from None
        kept = [line for line in read_log(out) if line["step"] <= step]
        with atomic_write(out / LOG_NAME) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(out / LOG_NAME, "a")  # noqa: SIM115  # closed by close()
        self._board = SummaryWriter(str(out / BOARD_NAME), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Log the figures of a step: numbers, and mappings of them."""
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        self._show(step, figures, "")
        self._board.flush()

    def _show(self, step: int, figures: Mapping[str, Any], prefix: str) -> None:
        for name, value in figures.items():
            if isinstance(value, Mapping):
                self._show(step, value, f"{prefix}{name}/")
            elif isinstance(value, (int, float)):
                self._board.add_scalar(prefix + name, value, step)

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        self._board.close()


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of a training's log, without a last line that was cut short."""
    path = out / LOG_NAME
    lines = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
