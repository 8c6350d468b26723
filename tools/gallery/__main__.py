"""Make the pictures of docs/README.md again, by the commands that the page shows.

    python -m tools.gallery --out build/gallery --store

The commands run in the folder --out, one after the other. --store takes the pictures into docs/gallery/.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "README.md"
MOST_BYTES = 300_000  # of a picture of the page
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\(gallery/([^)\s]+)\)")


def shown_commands(text: str) -> list[list[str]]:
    """The words of the commands of a page, in its order."""
    lines = [line for block in _BLOCK.findall(text) for line in block.splitlines() if line.strip()]
    return [shlex.split(line) for line in lines]


def shown_pictures(text: str) -> list[str]:
    """The names of the pictures of docs/gallery/ that a page shows."""
    return _PICTURE.findall(text)


def run_command(words: Sequence[str], folder: Path) -> None:
    """Run a command of the page in a folder. Raises CalledProcessError, or ValueError for another program."""
    programs = {".venv/bin/skelfit": ["-m", "skelfit"], ".venv/bin/python": []}
    if words[0] not in programs:
        raise ValueError(f"{PAGE}: expected {' or '.join(programs)}, found {words[0]}")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, *programs[words[0]], *words[1:]]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, check=True)


def store(folder: Path, names: Sequence[str]) -> None:
    """Copy pictures to docs/gallery/. Raises ValueError for one that is too large."""
    for name in names:
        size = (folder / name).stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"{name}: expected at most {MOST_BYTES} bytes, found {size}")
        (PAGE.parent / "gallery").mkdir(exist_ok=True)
        shutil.copyfile(folder / name, PAGE.parent / "gallery" / name)


def main() -> None:
    """Run the page."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.gallery", description=about)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for all files")
    parser.add_argument("--store", action="store_true", help="take the pictures into docs/gallery/")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    text = PAGE.read_text("utf-8")
    for words in shown_commands(text):
        print("$", shlex.join(words), flush=True)
        run_command(words, given.out)
    if given.store:
        store(given.out, shown_pictures(text))


if __name__ == "__main__":
    main()
