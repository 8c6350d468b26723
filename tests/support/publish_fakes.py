"""A finished run with images, and publishing it without the card's pictures, which take seconds to draw."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from job_fakes import make_run, work

from skelfit.api.run_shards import convert_run
from skelfit.bodies.model_set import find_models

FILES_PER_COMMIT = 4


def finished_run(folder: Path, **options: Any) -> Path:
    """A run of 20 rows, of which 17 are published, 16 with an image, in three shards below a folder."""
    run = make_run(folder, **{"images": True, **options})
    convert_run(run, work=work)
    return Path(run.out)


def _no_picture(_: Sequence[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a picture")


@contextmanager
def quickly(endpoint: str = "http://127.0.0.1:1") -> Iterator[None]:
    """Within it, cards have no real pictures, commits are small, and a failed one is tried again at once.

    endpoint: that of a stand-in Hub, to which large files go by LFS; by default there is none.
    """
    import skelfit.exports.dataset_card.write_card as write_card
    import skelfit.publishing.hub_repository as hub_repository
    import skelfit.publishing.upload as upload
    import skelfit.verification.verify_folders as verify_folders

    # The library reads its environment when it is imported, which it may have been.
    constants: dict[str, Any] = {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    with (
        mock.patch.object(write_card, "draw_angles", _no_picture),
        mock.patch.object(write_card, "draw_errors", _no_picture),
        mock.patch.object(verify_folders, "find_models", cache(find_models)),
        mock.patch.object(upload, "FILES_PER_COMMIT", FILES_PER_COMMIT),
        mock.patch.object(hub_repository, "PAUSES", (0.0, 0.0)),
        mock.patch.multiple("huggingface_hub.constants", **constants),
    ):
        yield


if __name__ == "__main__":  # ENDPOINT ARGUMENTS: `skelfit ARGUMENTS`, quickly
    import skelfit.cli

    with quickly(sys.argv.pop(1)):
        skelfit.cli.main()
