"""A dataset repository of the Hub, by its own library: what is there, and commits.

The token is that of the library's configuration (`hf auth login`, or HF_TOKEN); it is never shown.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCard, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from skelfit import __version__
from skelfit.errors import HubError
from skelfit.publishing.hub_address import HubAddress
from skelfit.publishing.publication import PublishedFile
from skelfit.publishing.publication_record import RECORD_NAME, PublicationRecord, read_record

PAUSES = (2.0, 10.0, 30.0)  # seconds before a commit that failed is tried again
_KIND = "dataset"
_MAIN = "main"
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    bytes: int
    sha256: str | None  # of large files
    git_hash: str

    def is_same(self, file: PublishedFile) -> bool:
        """Whether it has the content of a file of ours."""
        if self.bytes != file.record.bytes:
            return False
        if self.sha256 is not None:
            return self.sha256 == file.record.sha256
        content = file.path.read_bytes()
        return self.git_hash == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class RepositoryState:
    """What is in a repository."""

    exists: bool
    private: bool = True
    has_branch: bool = False  # False: the files are those of main, which a branch begins with
    files: Mapping[str, RemoteFile] | None = None  # by path
    record: PublicationRecord | None = None  # None: nothing that skelfit published


class HubRepository:
    """A repository at one branch. Its methods raise HubError."""

    def __init__(self, address: HubAddress, revision: str | None) -> None:
        if get_token() is None:
            raise HubError(
                f"{address}: expected a token of the Hub, found none; call `hf auth login`, or set HF_TOKEN"
            )
        self._api = HfApi(library_name="skelfit", library_version=__version__)
        self.revision = revision or _MAIN
        if not address.owner:
            address = replace(address, owner=self._call(address, lambda: str(self._api.whoami()["name"])))
        self.address = address

    @property
    def page(self) -> str:
        """Where it can be looked at."""
        return f"{self._api.endpoint}/datasets/{self.address.repository}"

    def state(self) -> RepositoryState:
        """What is there now."""
        return self._call(self.address, self._state)

    def _state(self) -> RepositoryState:
        name = self.address.repository
        try:
            private = bool(self._api.repo_info(name, repo_type=_KIND).private)
        except RepositoryNotFoundError:
            return RepositoryState(exists=False)
        try:
            revision, has_branch = self.revision, True
            files = self._files(revision)
        except RevisionNotFoundError:
            revision, has_branch = _MAIN, False
            files = self._files(revision)
        record = None
        if RECORD_NAME in files:
            with tempfile.TemporaryDirectory(prefix="skelfit-publish-") as folder:
                path = self._api.hf_hub_download(
                    name, RECORD_NAME, repo_type=_KIND, revision=revision, local_dir=folder
                )
                record = read_record(Path(path).read_bytes())
        return RepositoryState(True, private, has_branch, files, record)

    def _files(self, revision: str) -> dict[str, RemoteFile]:
        tree = self._api.list_repo_tree(
            self.address.repository, recursive=True, revision=revision, repo_type=_KIND
        )
        return {
            entry.path: RemoteFile(entry.size, None if entry.lfs is None else entry.lfs.sha256, entry.blob_id)
            for entry in tree
            if isinstance(entry, RepoFile) and entry.path != ".gitattributes"
        }

    def check_card(self, text: str) -> None:
        """Ask the Hub whether it takes the front matter of a card: its licence, for one."""
        self._call(self.address, lambda: DatasetCard(text).validate(repo_type=_KIND))

    def create(self, state: RepositoryState, private: bool) -> None:
        """Make the repository and the branch, where they are not there."""

        def make() -> None:
            name = self.address.repository
            if not state.exists:
                self._api.create_repo(name, private=private, repo_type=_KIND)
            if self.revision != _MAIN and not state.has_branch:
                self._api.create_branch(name, branch=self.revision, repo_type=_KIND, exist_ok=True)

        self._call(self.address, make)

    def commit(
        self,
        message: str,
        files: Sequence[PublishedFile],
        record: PublicationRecord | None,
        removed: Sequence[str],
    ) -> None:
        """Send some files, and remove others, as one commit. Content that is there already is not sent.

        Tried several times where the Hub cannot be reached or has a fault.
        """

        def send() -> None:
            # Made for each trial: the library notes in them how far they are.
            added = [
                CommitOperationAdd(file.name, str(path)) for file, path in zip(files, paths, strict=True)
            ]
            if record is not None:
                added.append(CommitOperationAdd(RECORD_NAME, record.to_bytes()))
            self._api.create_commit(
                self.address.repository,
                [*added, *(CommitOperationDelete(name, is_folder=False) for name in removed)],
                commit_message=message,
                repo_type=_KIND,
                revision=self.revision,
            )

        with _without_bars(), _on_this_machine(files) as paths:
            for pause in (*PAUSES, None):
                try:
                    return self._call(self.address, send)
                except HubError as error:
                    if pause is None or not _is_passing(error.__cause__):
                        raise
                    _log.warning("%s; it is tried again in %g s", error, pause)
                    time.sleep(pause)

    def _call(self, address: HubAddress, call: Callable[[], _T]) -> _T:
        """Call the Hub's library. Its errors are of several packages, and are told here in one line."""
        try:
            return call()
        except Exception as error:
            raise HubError(f"{address}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error of the library in one line, without the token."""
    text = _card_faults(error) or ": ".join(filter(None, (_in_a_line(error), _in_a_line(error.__cause__))))
    token = get_token()
    return text.replace(token, "***") if token else text


def _in_a_line(error: BaseException | None) -> str:
    """The first and last line of an error: of one of HTTP they are the code, and what the server says."""
    lines = [line.strip() for line in str(error or "").splitlines() if line.strip()]
    if error is None or lines:
        return " ".join(dict.fromkeys((*lines[:1], *lines[-1:])))
    return type(error).__name__


def _card_faults(error: Exception) -> str:
    """What the Hub has against a card; '' where the error says nothing of that."""
    try:
        faults = [str(fault["message"]) for fault in json.loads(str(error))["errors"]]
    except (ValueError, KeyError, TypeError):
        return ""
    return f"the Hub does not take the card: {'; '.join(faults)}"


def _is_passing(error: BaseException | None) -> bool:
    """Whether an error of the library may be over after a while."""
    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return error.response is not None and error.response.status_code >= 500
        if any("Transport" in base.__name__ for base in type(error).__mro__):  # of its HTTP client: no answer
            return True
        error = error.__cause__
    return False


@contextmanager
def _on_this_machine(files: Sequence[PublishedFile]) -> Iterator[list[Path]]:
    """The paths of files; those of a store are fetched for as long. Raises StoreError."""
    with tempfile.TemporaryDirectory(prefix="skelfit-publish-") as folder:
        paths = []
        for number, file in enumerate(files):
            if isinstance(file.path, Path):
                paths.append(file.path)
            else:
                paths.append(Path(folder) / str(number))
                file.path.download(paths[-1])
        yield paths


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hide the library's own progress bars, which would stand beside ours."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
