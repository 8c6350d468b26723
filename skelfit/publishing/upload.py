"""Bring a repository to the state of a publication: only what is not there is sent, and an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from skelfit.errors import HubError
from skelfit.exports.dataset_card.markdown import CARD_NAME
from skelfit.publishing.hub_address import HubAddress
from skelfit.publishing.hub_repository import HubRepository, RepositoryState
from skelfit.publishing.publication import Publication, PublishedFile
from skelfit.publishing.publication_record import RECORD_NAME
from skelfit.shards.finished_run import Step
from skelfit.shards.shard_files import SUMMARY_NAME

FILES_PER_COMMIT = 90  # the Hub recommends less than 100
_LAST = (SUMMARY_NAME, CARD_NAME)  # they say that all is there, so they come last


@dataclass(frozen=True)
class Upload:
    """What was done."""

    sent: tuple[str, ...]  # files that were not there
    removed: tuple[str, ...]  # files of an earlier publication that this one has not


def check_target(
    address: HubAddress,
    state: RepositoryState,
    identities: Collection[str],
    *,
    private: bool,
    overwrite: bool,
) -> None:
    """Raise HubError where a repository must not be written to: of other visibility, or with other files.

    identities: hashes of the run's identity, as it is and as it was before each --extend.
    """
    if not state.exists:
        return
    if state.private != private:
        remedy = "give --public" if private else "leave out --public, or change it on its page"
        raise HubError(f"{address}: is {'private' if state.private else 'public'}; {remedy}")
    if overwrite or not state.files:
        return
    if state.record is None:
        some = ", ".join(sorted(state.files)[:3])
        raise HubError(
            f"{address}: holds files that skelfit did not publish ({some}); choose another name, or --overwrite"
        )
    if state.record.identity_sha256 not in identities:
        raise HubError(
            f"{address}: holds another run ({state.record.subset}, identity {state.record.identity_sha256[:12]}); "
            "choose another name, or --overwrite"
        )


def upload(repository: HubRepository, state: RepositoryState, publication: Publication, step: Step) -> Upload:
    """Send what is not there. Raises HubError.

    The first commit says in publish.json what is on its way, and removes what an earlier publication has too much; the
    last one brings summary and card, and says that all is there. step: called with how many more people are there.
    """
    remote, record = state.files or {}, publication.record(complete=True)
    names = {file.name for file in publication.files}
    stale = [
        name for name in (state.record.files if state.record else ()) if name in remote and name not in names
    ]
    missing = [file for file in publication.files if not _is_there(file, state)]
    step(sum(file.people for file in publication.files) - sum(file.people for file in missing))
    if not missing and not stale and state.record == record:
        return Upload((), ())
    only_last = not stale and all(file.name in _LAST for file in missing)
    if not only_last:
        missing += _begin(repository, state, publication, stale)
    first = [file for file in missing if file.name not in _LAST]
    for start in range(0, len(first), FILES_PER_COMMIT):
        batch = first[start : start + FILES_PER_COMMIT]
        repository.commit(_message(batch), batch, None, ())
        step(sum(file.people for file in batch))
    last = [file for file in missing if file.name in _LAST]
    repository.commit(f"Complete {record.subset}", last, record, ())
    return Upload((*dict.fromkeys(file.name for file in missing), RECORD_NAME), tuple(stale))


def _begin(
    repository: HubRepository, state: RepositoryState, publication: Publication, stale: Sequence[str]
) -> list[PublishedFile]:
    """Say what is on its way; files that would make it look complete are taken away, and returned to be sent."""
    record = publication.record(complete=False)
    early = [file for file in publication.files if file.name in _LAST and file.name in (state.files or {})]
    removed = sorted({*stale, *(file.name for file in early)})
    if state.record != record or removed:
        repository.commit(f"Begin {record.subset}", (), record, removed)
    return [file for file in early if _is_there(file, state)]


def _is_there(file: PublishedFile, state: RepositoryState) -> bool:
    remote = (state.files or {}).get(file.name)
    return remote is not None and remote.is_same(file)


def _message(batch: Sequence[PublishedFile]) -> str:
    return f"Add {batch[0].name} to {batch[-1].name}" if len(batch) > 1 else f"Add {batch[0].name}"
