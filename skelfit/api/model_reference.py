"""A set of models by where it comes from: what pickles hold of the models, whose numbers are 100 MB."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from skelfit.bodies.model_set import OPEN_BODY, ModelSet, load_models, open_models
from skelfit.errors import ModelError


@dataclass(frozen=True)
class ModelReference:
    """The open body, or the models of a folder, and the hash of their numbers."""

    source: str  # an absolute folder, or 'open body'
    sha256: str

    def load(self) -> ModelSet:
        """The set. Raises ModelError where the folder is gone or holds other models."""
        return _loaded(self)


def reference_to(models: ModelSet) -> ModelReference | None:
    """Where to load a set from again; None: it was made in memory."""
    if models.source == OPEN_BODY:
        return ModelReference(OPEN_BODY, models.sha256)
    folder = Path(models.source)
    return ModelReference(str(folder.absolute()), models.sha256) if folder.is_dir() else None


@lru_cache(maxsize=2)
def _loaded(reference: ModelReference) -> ModelSet:
    """Kept for the next: a program unpickles many people of the same models."""
    source = reference.source
    models = open_models() if source == OPEN_BODY else load_models(source)
    if models.sha256 != reference.sha256:
        expected = f"the models that the people were fitted with (sha256 {reference.sha256[:12]})"
        raise ModelError(source, None, expected, f"others (sha256 {models.sha256[:12]})")
    return models
