"""Paths and addresses on the command line, in YAML files and variables; and names, which mean shipped files."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click
import pytest
from click.testing import CliRunner

from skelfit.bodies.model_set import find_models
from skelfit.cli import COMMANDS, main
from skelfit.cli.path_types import LocalPath, LocationPath, PathPattern, SchedulerPlace
from skelfit.config.manifest import Manifest, load_manifest
from skelfit.config.pipeline import Pipeline, load_pipeline
from skelfit.errors import ConfigError, SkelfitError
from skelfit.learning.data.person_stream import ALL, PersonSource, find_tars, in_order
from skelfit.learning.training.training_config import TrainConfig, load_train_config
from skelfit.resources.catalog import MANIFESTS, PIPELINES, TRAININGS
from skelfit.storage.path_checks import describe_non_local

ROOT = Path(__file__).parents[2]
ADDRESS = "s3://bucket/demo"
# What is on this machine alone.
LOCAL = {
    "--log-file",
    "convert --performance-report",
    "convert --vertex-map",
    "bench --report",
    "models import --smpl",
    "models import --skel",
    "models import --joints",
    "models import --keypoints",
    "models import --out",
    "models open-body --out",
    "models map SOURCE",
    "models map --target",
    "models map --out",
    "evaluate --images",
    "predict CHECKPOINT",
    "predict IMAGE",
    "predict --out",
    "predict --boxes",
    "publish --out",
    "refine --settings",
    "refine --performance-report",
    "train --out",
    "train --checkpoint",
    "train import FILE",
    "train import --out",
    *(
        f"{command} --{name}"
        for command in ("convert", "refine", "verify")
        for name in ("tls-ca", "tls-cert", "tls-key")
    ),
}
# Text that is no path: names of people and rules, numbers, a title, a function, a repository of the Hub.
TEXTS = {
    "convert --filter",
    "verify --gate",
    "view KEY",
    "export --key",
    "card --title",
    "publish --title",
    "publish --license",
    "publish --revision",
    "publish hf://datasets/OWNER/NAME",
    "predict --box",
    "predict --detector",
    "predict --intrinsics",
    "predict --intrinsics-from",
    "evaluate --intrinsics-from",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    monkeypatch.delenv("SKELFIT_DATA", raising=False)
    return folder


def parameters() -> Iterator[tuple[list[str], click.Command, click.Parameter]]:
    """All parameters of all commands: the command's words, the command, the parameter."""
    todo: list[tuple[list[str], click.Command | None]] = [
        ([name], main.get_command(click.Context(main), name)) for name in COMMANDS
    ]
    while todo:
        words, command = todo.pop()
        assert command is not None
        if isinstance(command, click.Group):
            todo += [([*words, name], each) for name, each in command.commands.items()]
        for parameter in command.params:
            yield words, command, parameter


PARAMETERS = list(parameters())


def said(*words: object) -> str:
    """The one line of a refusal, which leaves the working folder as it was."""
    before = sorted(Path().rglob("*"))
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    assert result.stdout == "" and sorted(Path().rglob("*")) == before
    (line,) = result.stderr.splitlines()
    return line


def name_of(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name.strip("[].")


def arguments_with(
    words: list[str], command: click.Command, parameter: click.Parameter, value: str
) -> list[str]:
    """A call in which everything that is required has a value, and this parameter has the given one."""
    arguments = list(words)
    for other in command.params:
        if other is not parameter and not other.required:
            continue
        choices = getattr(other.type, "choices", None)
        given = value if other is parameter else str(choices[0]) if choices else "x"
        arguments += [name_of(other), given] if isinstance(other, click.Option) else [given]
    return arguments


def test_no_command_or_option_was_overlooked() -> None:
    assert len(PARAMETERS) > 100 and {words[0] for words, _, _ in PARAMETERS} == set(COMMANDS)
    plain_texts = set()
    for words, _, parameter in PARAMETERS:
        name = f"{' '.join(words)} {name_of(parameter)}"
        kind = parameter.type
        assert not isinstance(kind, click.Path | click.File) or isinstance(kind, LocalPath | LocationPath), (
            f"{name}: skelfit.cli.path_types"
        )
        if isinstance(
            kind, click.types.StringParamType | click.types.UnprocessedParamType
        ) and not isinstance(kind, PathPattern | SchedulerPlace):
            plain_texts.add(name)
    assert plain_texts == TEXTS, "a new option: if it is a path, give it a type of skelfit.cli.path_types"


def test_a_path_on_this_machine_is_no_address() -> None:
    local = set()
    for words, command, parameter in PARAMETERS:
        if not isinstance(parameter.type, LocalPath | SchedulerPlace):
            continue
        line = said(*arguments_with(words, command, parameter, ADDRESS))
        assert line.startswith(f"Error: {name_of(parameter)}: expected a"), line
        assert "a path on this machine, found the address s3://bucket/demo; copy the files" in line, line
        name = name_of(parameter)
        local.add(name if name == "--log-file" else f"{' '.join(words)} {name}")
    assert {name for name in local if not name.endswith("--scheduler")} == LOCAL


def test_an_address_of_no_use_is_refused_everywhere_else() -> None:
    """All of them take s3://; the tests of stores show it."""
    places = 0
    for words, command, parameter in PARAMETERS:
        if not isinstance(parameter.type, LocationPath | PathPattern):
            continue
        writing = getattr(parameter.type, "writing", False)
        address = "https://host/x" if writing else "ftp://host/x"
        line = said(*arguments_with(words, command, parameter, address))
        assert line.startswith(f"Error: {name_of(parameter)}: expected a path, or an address ("), line
        assert f"found the address {address}" in line, line
        places += 1
    assert places > 25


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (
            "file:///data/a%20b/x.npz",
            "the address file:///data/a%20b/x.npz; give the path alone: /data/a b/x.npz",
        ),
        ("FILE://localhost/data", "the address FILE://localhost/data; give the path alone: /data"),
        ("file://data/x", "the address file://data/x; give the path alone: data/x"),
        ("simplecache::gs://b/x", "the address simplecache::gs://b/x; copy the files"),
        ("{a,https://b}/{000..012}.tar", "the address {a,https://b}/{000..012}.tar; copy the files"),
        ("pipe:cat x.tar", "the command pipe:cat x.tar; write its output to a file"),
        ("s3:/bucket", None),
        ("runs/12:30/{a..b}.tar", None),
        ("C:/data", None),
        ("a//b", None),
        ("", None),
    ],
)
def test_what_is_an_address(text: str, description: str | None) -> None:
    assert (describe_non_local(text) or "").startswith(description or "") and (
        describe_non_local(text) is None
    ) == (description is None)


def test_schedulers_have_addresses_and_files() -> None:
    labels = ["convert", "--labels", "gone.npz", "--out", "out", "--scheduler"]
    for address in ("tcp://127.0.0.1:9", "tls://127.0.0.1:9", "127.0.0.1:9", "scheduler.json"):
        result = CliRunner().invoke(main, [*labels, address])
        assert result.exit_code == 2 and "gone.npz" in result.stderr, (
            result.stderr
        )  # it got further than the option
    expected = (
        "--scheduler: expected an address like tcp://HOST:PORT, or a path on this machine, found the address"
    )
    for address in ("soap://here:1", "file:///shared/scheduler.json", "S3://b"):
        assert f"{expected} {address}" in said(
            "convert", "--labels", "x", "--out", "out2", "--scheduler", address
        )


def local_texts(cls: Any, where: str = "") -> Iterator[tuple[str, bool]]:
    """All texts in a configuration, dotted, and whether each is a path."""
    hints = get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        parts = [hints[spec.name]]
        while any(get_origin(part) is not None for part in parts):
            parts = [each for part in parts for each in (get_args(part) if get_origin(part) else (part,))]
        for part in parts:
            if part is str:
                yield f"{where}{spec.name}", not {"local", "location"}.isdisjoint(spec.metadata)
            elif dataclasses.is_dataclass(part):
                yield from local_texts(part, f"{where}{spec.name}.")


def test_no_field_was_overlooked() -> None:
    texts = {
        name
        for config in (Manifest, Pipeline, TrainConfig)
        for name, local in local_texts(config)
        if not local
    }
    origin = {f"origins.{name}" for name in ("name", "url", "get", "license", "citation")}
    assert texts == origin | {
        "name",
        "description",
        "labels.sha256",
        "labels.expected_keys",
        "fit.stages.name",
        "network.backbone",
        "network.kind",
    }
    paths = {
        name for config in (Manifest, Pipeline, TrainConfig) for name, local in local_texts(config) if local
    }
    assert paths == {
        "labels.path",
        "labels.path_prefix",
        "labels.read.vertex_map",
        "images",
        "data.subsets.shards",
        "data.keep",
        "validation.subsets.shards",
        "network.checkpoint",
    }


@pytest.mark.parametrize(
    ("load", "text", "key"),
    [
        (load_manifest, "name: m\nlabels: [{path: 'ADDRESS'}]\n", "labels[0].path"),
        (load_manifest, "name: m\nlabels: [{path: x}]\nimages: 'ADDRESS'\n", "images"),
        (
            load_train_config,
            "data: {subsets: [{shards: a}, {shards: 'ADDRESS'}]}\n",
            "data.subsets[1].shards",
        ),
        (load_train_config, "data: {keep: 'ADDRESS'}\n", "data.keep"),
        (
            load_train_config,
            "validation: {subsets: [{shards: 'ADDRESS'}]}\n",
            "validation.subsets[0].shards",
        ),
    ],
)
def test_addresses_in_files(load: Any, text: str, key: str) -> None:
    Path("c.yaml").write_text(text.replace("ADDRESS", "s3://b/x"))
    load("c.yaml")
    Path("c.yaml").write_text(text.replace("ADDRESS", "ftp://b/x"))
    with pytest.raises(ConfigError) as error:
        load("c.yaml")
    assert str(error.value).startswith(f"c.yaml: '{key}': expected a path, or an address (s3://, gs://,")


@pytest.mark.parametrize(
    ("load", "text", "key"),
    [
        (load_manifest, "name: m\nlabels: [{path: x, path_prefix: 's3://b/x'}]\n", "labels[0].path_prefix"),
        (load_train_config, "network: {checkpoint: 's3://b/x'}\n", "network.checkpoint"),
    ],
)
def test_paths_in_files_that_are_no_addresses(load: Any, text: str, key: str) -> None:
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load("c.yaml")
    assert str(error.value).startswith(
        f"c.yaml: '{key}': expected a path on this machine, found the address s3://b/x"
    )


def test_addresses_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELFIT_MODELS", "ftp://b/x")
    monkeypatch.setenv("SKELFIT_DATA", "ftp://b/x")
    expected = "expected a path, or an address"
    assert f"$SKELFIT_DATA: {expected}" in said("convert", "--manifest", "demo", "--out", "out")
    assert f"$SKELFIT_MODELS: {expected}" in said("convert", "--labels", "x.npz", "--out", "out")
    assert f"$SKELFIT_MODELS: {expected}" in said("bench")
    with pytest.raises(SkelfitError, match=r"\$SKELFIT_MODELS"):
        find_models()
    monkeypatch.delenv("SKELFIT_MODELS")
    # The demo's people are made, which needs a folder.
    monkeypatch.setenv("SKELFIT_DATA", "memory://data")
    line = said("-q", "convert", "--manifest", "demo", "--out", "out", "--workers", "0")
    assert line.startswith("Error: $SKELFIT_DATA: expected a folder of this machine")


def test_the_loader_opens_files_only() -> None:
    """webdataset takes a name that begins with `pipe:` for a command."""
    for pattern in ("ftp://b/x.tar", "pipe:touch ran"):
        with pytest.raises(SkelfitError, match="shards: expected a path, or an address"):
            find_tars(pattern)
    with pytest.raises(SkelfitError, match="gone:1.tar: expected finished shards"):
        find_tars("gone:1.tar")
    tarfile.open("pipe:touch ran", "w").close()
    source = PersonSource((find_tars("*touch ran"),), None, images=False)
    assert source.tars == (("pipe:touch ran",),) and list(in_order(source, ALL)) == []
    assert not Path("ran").exists()


def test_names_mean_the_files_of_the_repository() -> None:
    for shipped, folder in ((MANIFESTS, "manifests"), (PIPELINES, "pipelines"), (TRAININGS, "pipelines")):
        for name in shipped.names:
            assert shipped.find(name).resolve() == ROOT / folder / f"{name}.yaml"
    assert {*PIPELINES.names, *TRAININGS.names} == {path.stem for path in (ROOT / "pipelines").glob("*.yaml")}
    assert set(MANIFESTS.names) == {path.stem for path in (ROOT / "manifests").glob("*.yaml")}
    assert all(name.startswith("train-") for name in TRAININGS.names) and "hmr-skel" in PIPELINES.names
    assert MANIFESTS.find("all").resolve() == ROOT / "manifests"


def test_names_come_before_what_lies_here() -> None:
    Path("demo").mkdir()
    assert MANIFESTS.find("demo").name == "demo.yaml" and MANIFESTS.find("./demo") == Path("demo")
    Path("demo.yaml").write_text("name: mine\nlabels: [{path: x}]\n")
    assert load_manifest(MANIFESTS.find("demo.yaml")).name == "mine"
    Path("train-mine").write_text("")
    assert TRAININGS.find("train-mine") == Path("train-mine")
    with pytest.raises(ConfigError, match="one of first-order, free-root, hmr-skel, precise, skel-cf"):
        PIPELINES.find("all")


def test_a_wrong_name_lists_the_right_ones() -> None:
    line = said("convert", "--labels", "x.npz", "--pipeline", "hmr-skle", "--out", "out")
    assert line == (
        "Error: hmr-skle: expected a pipeline: one of first-order, free-root, hmr-skel, precise, skel-cf, or the path "
        "of a YAML file, found no such name or file; did you mean hmr-skel?"
    )
    assert "one of all, aic, coco, demo" in (line := said("convert", "--manifest", "dmeo", "--out", "out"))
    assert line.endswith("did you mean demo?")
    for words in (["train-tinny"], ["--config", "train-tinny.yaml"]):
        line = said("train", *words, "--shards", "x", "--out", "out")
        assert "one of train-hsmr, train-skel-cf, train-tiny," in line and line.endswith(
            "did you mean train-tiny?"
        )
    assert "expected a pipeline" in said("bench", "--pipeline", "train-tiny")


def test_all_manifests_are_converted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["convert", "--manifest", "all", "--out", "out", "--workers", "0"])
    assert result.exit_code == 2
    assert [line for line in result.stdout.splitlines() if line.startswith("== ")] == [
        f"== {name}" for name in MANIFESTS.names if not name.startswith("demo")
    ]


@pytest.mark.parametrize("name", PIPELINES.names)
def test_a_pipeline_by_name_is_the_one_by_path(name: str) -> None:
    assert load_pipeline(PIPELINES.find(name)) == load_pipeline(ROOT / "pipelines" / f"{name}.yaml")
