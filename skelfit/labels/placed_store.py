"""The label store of a run whose labels, or whose shards, are at an address."""

from __future__ import annotations

from pathlib import Path

from skelfit.config.manifest import LabelSource
from skelfit.errors import LabelError
from skelfit.labels.label_schema import check_sha256
from skelfit.labels.label_store import build_store, store_info
from skelfit.storage.local_cache import cache_folder, fetched, upload_named
from skelfit.storage.locations import Location


def place_store(
    source: LabelSource, labels: Location, folder: Location, max_abs_beta: float, *, shared: bool = False
) -> Location:
    """The store of labels in a folder, each at a path or at an address.

    Labels at an address are fetched. A store that belongs at one is built on this machine and uploaded, so that each
    worker's machine fetches it once. shared: as for `build_store`. Raises as it does, and StoreError.
    """
    local = fetched(labels, "a label file", LabelError)
    stores = folder if isinstance(folder, Path) else cache_folder() / "labels"
    try:
        built = build_store(source, local, stores, max_abs_beta, shared=shared)
    except LabelError as error:
        if error.path != str(local):
            raise
        raise type(error)(str(labels), error.key, error.expected, error.found) from None
    if not isinstance(labels, Path):
        check_sha256(source, labels, store_info(built).sha256)
    return built if isinstance(folder, Path) else upload_named(built, folder)
