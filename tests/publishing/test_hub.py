"""Publishing to a stand-in Hub: what is sent, what is not sent twice, what is refused, and a kill on the way."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import programs
import pytest
from click.testing import CliRunner
from hub_server import ACCOUNT, TOKEN, Repository, StandInHub, stand_in_hub
from job_fakes import make_run, work
from publish_fakes import finished_run, quickly

import skelfit
from skelfit.api.run_shards import convert_run
from skelfit.cli import main
from skelfit.errors import HubError
from skelfit.publishing.publication_record import read_record
from skelfit.publishing.publish_run import PublishedDataset

pytest.importorskip("pyarrow")
pytest.importorskip("huggingface_hub")

# The Hub's library and its HTTP client, about each other.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
NAME = f"{ACCOUNT}/people"
ADDRESS = f"hf://datasets/{NAME}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shorter one of the same subset, so that some files have the same names."""
    return finished_run(tmp_path_factory.mktemp("other"), images=False, people=12)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in_hub() as server, quickly(server.endpoint):
        yield server


def publish(run: Path, address: str = ADDRESS, **options: Any) -> PublishedDataset:
    return skelfit.publish(run, address, workers=0, **options)


@pytest.fixture(scope="module")
def expected(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the run's dataset, by a dry run."""
    out = tmp_path_factory.mktemp("dry") / "run"
    with quickly():
        skelfit.publish(run, ADDRESS, dry_run=True, out=out, workers=0)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_all_files_arrive_and_are_sent_once(
    hub: StandInHub, run: Path, expected: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    result = CliRunner().invoke(main, ["publish", str(run), "hf://datasets/people", "--workers", "0"])
    assert result.exit_code == 0, result.output
    repository = hub.repositories[NAME]  # of the token's account, where the address names no owner
    assert repository.private and hub.files(NAME) == expected
    assert repository.commits[0] == "Begin fake" and repository.commits[-1] == "Complete fake"
    assert len(repository.commits) > 3  # of the few files that a commit takes in this test
    assert f"{len(expected)} files" in result.output and "sent, 0 were there" in result.output
    assert f'next: datasets.load_dataset("{NAME}")' in result.output
    assert TOKEN not in result.output and TOKEN not in caplog.text
    hub.requests.clear()
    again = publish(run)
    assert again.sent == () and again.files.keys() == expected.keys()
    assert not [request for request in hub.requests if "commit" in request or request.startswith("PUT")]


@pytest.mark.soak
def test_a_killed_upload_goes_on_with_what_is_not_there(
    hub: StandInHub, run: Path, expected: dict[str, bytes]
) -> None:
    program = programs.start("-m", "publish_fakes", hub.endpoint, "publish", run, ADDRESS, "--workers", "0")

    def kill() -> None:
        if len(hub.received) == 5:  # in the middle of the second batch of shards
            os.kill(program.pid, signal.SIGKILL)

    hub.on_object = kill
    said = program.communicate()
    assert program.returncode == -signal.SIGKILL, said
    hub.on_object = lambda: None
    there = hub.files(NAME)
    record = read_record(there["publish.json"])
    assert record is not None and not record.complete and "fake-000000.tar" in there
    assert "summary.json" not in there and "README.md" not in there and len(there) < len(expected) - 5
    committed, received = set(there) - {"publish.json"}, list(hub.received)
    assert len(publish(run).sent) == len(expected) - len(committed)
    assert hub.files(NAME) == expected
    # Nothing came a second time, not even what had come when its commit was not yet made.
    assert set(received).isdisjoint(hub.received[len(received) :])


def test_another_run_is_refused_and_replaced_only_with_overwrite(
    hub: StandInHub, run: Path, other_run: Path, expected: dict[str, bytes]
) -> None:
    publish(other_run)
    before = hub.files(NAME)
    with pytest.raises(HubError, match=r"holds another run \(fake, identity [0-9a-f]{12}\).*--overwrite"):
        publish(run)
    assert hub.files(NAME) == before
    publish(run, overwrite=True)
    assert hub.files(NAME) == expected
    result = publish(other_run, overwrite=True)
    assert hub.files(NAME) == before
    assert {"fake-000002.tar", "preview/fake-00000.parquet"} <= set(result.removed)


def test_what_replaces_another_run_never_looks_complete_on_the_way(
    hub: StandInHub, run: Path, other_run: Path, expected: dict[str, bytes]
) -> None:
    publish(other_run)
    commit = f"POST /api/datasets/{NAME}/commit/main"
    done = hub.requests.count(commit)

    def fail_later() -> None:
        hub.failures[commit] = 3

    hub.on_object = fail_later  # the commit that says what is on its way has no such object
    with pytest.raises(HubError, match=r"503"):
        publish(run, overwrite=True)
    assert hub.requests.count(commit) == done + 1 + 3
    assert not {"summary.json", "README.md"} & set(hub.files(NAME))
    hub.on_object, hub.failures = lambda: None, {}
    publish(run)  # the same run goes on: no --overwrite is needed
    assert hub.files(NAME) == expected


def test_of_a_run_that_grew_only_the_new_shards_are_sent(hub: StandInHub, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    out = Path(run.out)
    convert_run(replace(run, labels=(replace(run.labels[0], rows=16),)), work=work)
    publish(out)
    convert_run(run, work=work, extend=True)
    result = publish(out)
    assert [name for name in result.sent if name.endswith(".tar")] == ["fake-000002.tar"]
    record = read_record(hub.files(NAME)["publish.json"])
    assert record is not None and record.complete and set(hub.files(NAME)) == set(result.files)


def test_files_of_others_are_not_touched(hub: StandInHub, run: Path, expected: dict[str, bytes]) -> None:
    hub.repositories[NAME] = Repository(True, {"main": {"mine.csv": b"1", "README.md": b"# mine"}})
    with pytest.raises(HubError, match=r"holds files that skelfit did not publish \(README.md, mine.csv\)"):
        publish(run)
    publish(run, overwrite=True)
    assert hub.files(NAME) == expected | {"mine.csv": b"1"}


def test_private_stays_private_and_public_public(hub: StandInHub, run: Path) -> None:
    hub.repositories[NAME] = Repository(private=False)
    with pytest.raises(HubError, match="is public; give --public"):
        publish(run)
    hub.repositories[NAME] = Repository(private=True)
    with pytest.raises(HubError, match="is private; leave out --public"):
        publish(run, private=False)
    assert not hub.files(NAME)
    publish(run, f"hf://datasets/{ACCOUNT}/new", private=False)
    assert not hub.repositories[f"{ACCOUNT}/new"].private


def test_a_branch(hub: StandInHub, run: Path, expected: dict[str, bytes]) -> None:
    hub.repositories[NAME] = Repository(private=True)
    publish(run, revision="v1")
    assert hub.files(NAME) == {} and hub.files(NAME, "v1") == expected


def test_a_fault_of_the_hub_is_waited_for(hub: StandInHub, run: Path, expected: dict[str, bytes]) -> None:
    hub.failures = {f"POST /api/datasets/{NAME}/commit/main": 2}
    publish(run)
    assert hub.files(NAME) == expected and hub.repositories[NAME].commits.count("Begin fake") == 1


def test_a_changed_licence_is_one_commit(hub: StandInHub, run: Path) -> None:
    publish(run)
    commits = len(hub.repositories[NAME].commits)
    assert publish(run, license="cc-by-4.0").sent == ("README.md", "publish.json")
    assert len(hub.repositories[NAME].commits) == commits + 1
    assert b"license: cc-by-4.0" in hub.files(NAME)["README.md"]


def test_a_licence_that_the_hub_does_not_know(hub: StandInHub, run: Path) -> None:
    with pytest.raises(HubError, match='the Hub does not take the card: "license" must be one of'):
        publish(run, license="my-own")
    assert NAME not in hub.repositories


def test_a_token_that_the_hub_does_not_know(
    hub: StandInHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_unknown0123456789")
    result = CliRunner().invoke(main, ["publish", str(run), ADDRESS, "--workers", "0"])
    assert result.exit_code == 2 and f"Error: {ADDRESS}: " in result.output
    assert "401" in result.output and "hf_unknown" not in result.output
    assert len(result.output.strip().splitlines()) == 1
