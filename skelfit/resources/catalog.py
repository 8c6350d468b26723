"""Files that come with skelfit, by name. Commands take a name or a path.

In a checkout the folders beside this module are links to `manifests/` and `pipelines/` at the top.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from skelfit.errors import ConfigError

_HERE = Path(__file__).parent
_TRAINING_PREFIX = "train-"  # of the names of training configurations, which lie among the pipelines


@dataclass(frozen=True)
class ResourceFolder:
    """The files of one kind."""

    kind: str  # as messages name it
    folder: Path
    trainings: bool = False
    all: bool = False  # whether `all` stands for the whole folder

    @property
    def names(self) -> list[str]:
        """All names, in alphabetical order."""
        stems = sorted(path.stem for path in self.folder.glob("*.yaml"))
        return [stem for stem in stems if stem.startswith(_TRAINING_PREFIX) == self.trainings]

    def find(self, given: str | Path) -> Path:
        """The file of a name or path. A name comes first, so that it means the same in every working folder.

        Raises ConfigError, which lists the names, for a text that is neither.
        """
        text, names = str(given), self.names
        if text in names:
            return self.folder / f"{text}.yaml"
        if self.all and text == "all":
            return self.folder
        if text and Path(text).exists():
            return Path(text)
        known = ["all", *names] if self.all else names
        expected = f"a {self.kind}: one of {', '.join(known)}, or the path of a YAML file"
        near = difflib.get_close_matches(Path(text).name.removesuffix(".yaml"), known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(text or "''", None, expected, f"no such name or file{hint}")


MANIFESTS = ResourceFolder("manifest", _HERE / "manifests", all=True)
PIPELINES = ResourceFolder("pipeline", _HERE / "pipelines")
TRAININGS = ResourceFolder("training", _HERE / "pipelines", trainings=True)
