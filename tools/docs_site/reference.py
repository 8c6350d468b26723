"""The reference pages of the site, made from the code: command line, Python, configuration, formats."""

from __future__ import annotations

import ast
import dataclasses
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import click
import numpy as np

import skelfit
from skelfit import FittedPeople
from skelfit.bodies.dofs import DOF_NAMES, dof_limits
from skelfit.cli import main
from skelfit.config.manifest import Manifest
from skelfit.config.pipeline import Pipeline
from skelfit.config.refine_job import RefineJob
from skelfit.config.yaml_dataclasses import type_name
from skelfit.learning.training.training_config import TrainConfig
from skelfit.shards.content_seal import SEAL
from skelfit.shards.label_vector import COORDINATES, LABEL_SIZE, LAYOUT_VERSION, META, schema
from skelfit.shards.shard_schema import ShardMarker, ShardRow
from tools.docs_site.comments import field_comments
from tools.docs_site.summary_fields import SUMMARY

DOF_NAMES_PATH = f"{dof_limits.__module__}.DOF_NAMES"
CONFIGURATIONS: dict[str, tuple[type, str]] = {
    "Manifest": (Manifest, "What a subset is: `manifests/*.yaml`. The guide is [datasets](../manifests.md)."),
    "Pipeline": (Pipeline, "How a job runs: `pipelines/*.yaml`. The guide is [pipelines](../pipelines.md)."),
    "Refinement": (
        RefineJob,
        "How shards are refined: a file for `skelfit refine --settings`. The guide is [refine](../refine.md).",
    ),
    "Training": (
        TrainConfig,
        "What is trained: `pipelines/train-*.yaml`. The guide is [train](../train.md).",
    ),
}


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a configuration file."""

    name: str
    type: str
    default: str
    description: str


@dataclasses.dataclass(frozen=True)
class Section:
    """The keys of one mapping of a configuration file; `path` is its dotted key, '' for the file itself."""

    path: str
    summary: str
    keys: tuple[Key, ...]


def reference_pages() -> dict[str, str]:
    """Path in the site -> Markdown."""
    return {
        "reference/cli.md": "\n\n".join(cli_page()) + "\n",
        "reference/python.md": "\n\n".join(python_page()) + "\n",
        "reference/configuration.md": "\n\n".join(configuration_page()) + "\n",
        "reference/formats.md": "\n\n".join(formats_page()) + "\n",
    }


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [list(header)]
    lines.append(["---"] * len(lines[0]))
    lines += [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# Command line.


def cli_page() -> Iterator[str]:
    """Every command with its arguments and options, as `--help` has them."""
    yield "# Command line"
    yield "`skelfit COMMAND --help` prints the same in the terminal."
    yield "These options may stand before the command; all but `--version` and `--help` also after it:"
    yield table(("option", "meaning"), ((f"`{o}`", _plain(text)) for o, text in options_of(main)))
    for name, command in commands():
        yield f"## {name}"
        yield from _help(command.help or "")
        with click.Context(command, info_name=name) as context:
            yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
        yield table(("option", "meaning"), ((f"`{o}`", _plain(text)) for o, text in options_of(command)))


def commands(group: click.Group = main, prefix: str = "skelfit") -> Iterator[tuple[str, click.Command]]:
    """The commands of a group, and those of its groups, with their full names."""
    context = click.Context(group, info_name=prefix)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")


def options_of(command: click.Command) -> list[tuple[str, str]]:
    """The options of a command and their help texts."""
    with click.Context(command) as context:
        options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
        records = [option.get_help_record(context) for option in options]
    return [record for record in records if record is not None]


def _help(text: str) -> Iterator[str]:
    """The paragraphs of a command's help; those that click keeps as they are (\\b) become code."""
    for paragraph in text.split("\n\n"):
        if paragraph.lstrip().startswith("\b"):
            yield f"```text\n{paragraph.lstrip().removeprefix(chr(8)).strip(chr(10))}\n```"
        else:
            yield _plain(" ".join(paragraph.split()))


def _plain(text: str) -> str:
    """A text of the terminal, whose signs outside of code mean nothing in Markdown."""
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        for sign in ("\\", "<", "*", "_", "[", "]"):
            parts[i] = parts[i].replace(sign, f"\\{sign}")
    return "`".join(parts)


# Python.


def python_page() -> Iterator[str]:
    """What `import skelfit` gives, by mkdocstrings; then the names of the angles."""
    yield "# Python"
    yield "`import skelfit` gives the names on this page. Everything else may change without notice."
    for path in public_paths().values():
        if path != DOF_NAMES_PATH:
            yield f"::: {path}"
        if path == _path(FittedPeople):
            yield "Fields of FittedPeople, where `...` are the leading dimensions:"
            yield _fields(FittedPeople, "field")
    yield "## DOF_NAMES"
    yield (
        "The names of SKEL's 46 angles, in the order of `poses`, with their limits. The pelvis has none. The first "
        "three angles are the global orientation."
    )
    limits = np.degrees(dof_limits())
    rows = (
        (str(i), f"`{name}`", *(f"{bound:.0f}" if np.isfinite(bound) else "" for bound in limits[i]))
        for i, name in enumerate(DOF_NAMES)
    )
    yield table(("index", "name", "lowest, degrees", "highest, degrees"), rows)


def public_paths() -> dict[str, str]:
    """Name that `import skelfit` gives -> where it is defined, as the imports for type checkers say."""
    source = Path(skelfit.__file__).read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    defined = {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    return {name: defined[name] for name in skelfit.__all__ if name != "__version__"}


# Configuration.


def configuration_page() -> Iterator[str]:
    """Every key of manifests, pipelines and trainings."""
    yield "# Configuration"
    yield (
        "Manifests, pipelines and trainings are YAML files. An unknown key, a missing key and a wrong type are errors "
        "that name the file and the key. `[]` after a key means a list."
    )
    for title, (cls, about) in CONFIGURATIONS.items():
        yield f"## {title}"
        yield about
        for section in sections(cls):
            yield f"### {title}: `{section.path}`" if section.path else f"### {title}: the file"
            if section.path:
                yield _plain(section.summary)
            rows = (
                (f"`{k.name}`", _plain(k.type), f"`{k.default}`", _plain(k.description)) for k in section.keys
            )
            yield table(("key", "type", "default", "meaning"), rows)


def sections(cls: type, path: str = "") -> Iterator[Section]:
    """The mappings of a configuration file that is read into a dataclass, the outer ones first."""
    hints, comments = get_type_hints(cls), field_comments(cls)
    keys, nested = [], []
    for field in dataclasses.fields(cls):
        inner, suffix = _nested(hints[field.name])
        if inner is not None:
            nested.append((inner, (f"{path}." if path else "") + field.name + suffix))
        type_text = type_name(hints[field.name])
        keys.append(Key(field.name, type_text, _default(field), _sentence(comments[field.name])))
    yield Section(path, " ".join((cls.__doc__ or "").split()), tuple(keys))
    for inner, inner_path in nested:
        yield from sections(inner, inner_path)


def _nested(hint: Any) -> tuple[type | None, str]:
    """The dataclass in a type, and '[]' for each list around it; None where there is none."""
    if dataclasses.is_dataclass(hint):
        return hint, ""  # type: ignore[return-value]
    if get_origin(hint) in (Union, types.UnionType):
        inner = [_nested(a) for a in get_args(hint) if a is not type(None)]
        return inner[0]
    if get_origin(hint) is tuple:
        cls, suffix = _nested(get_args(hint)[0])
        return cls, f"[]{suffix}"
    return None, ""


def _default(field: dataclasses.Field[Any]) -> str:
    """A field's default as YAML has it."""
    value = field.default
    if value is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return "required"
        value = field.default_factory()
    if dataclasses.is_dataclass(value):
        return "see below"
    return _yaml(value)


def _yaml(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-").replace("e+0", "e+")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else str(dict(value))
    return str(value) if value != "" else "''"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# Formats.


def formats_page() -> Iterator[str]:
    """The label vector, the metadata of a sample, and the files beside the tars."""
    yield "# Formats"
    yield "The guide with examples is [shards](../shards.md)."
    yield "## The label vector"
    yield f"`KEY.label.npy`: {LABEL_SIZE} float32 numbers, layout `{LAYOUT_VERSION}`."
    yield table(
        ("name", "offset", "shape", "unit", "meaning"),
        (
            (
                f"`{f['name']}`",
                str(f["offset"]),
                " x ".join(map(str, f["shape"])),
                f["unit"],
                _sentence(f["meaning"]),
            )
            for f in schema()["fields"]
        ),
    )
    yield "## The metadata of a sample"
    yield "`KEY.meta.json`:"
    yield table(("key", "meaning"), ((f"`{k}`", _plain(_sentence(v))) for k, v in META.items()))
    yield "Values of `coordinates`:"
    yield table(("value", "meaning"), ((f"`{k}`", _plain(_sentence(v))) for k, v in COORDINATES.items()))
    yield "## A row of the sidecar"
    yield "`NAME-000000.rows.jsonl`: one JSON object a line, one line for each input row."
    yield _fields(ShardRow)
    yield "## The done marker"
    yield "`NAME-000000.done.json`: written last, when the tar and the sidecar are complete."
    yield _fields(ShardMarker)
    yield f"Its last key, `{SEAL}`, is a hash of all other keys. Markers of earlier versions have none."
    yield "## The summary"
    yield "`summary.json`: written when all shards of the run are finished."
    yield table(("key", "meaning"), ((f"`{k}`", _plain(v)) for k, v in SUMMARY.items()))


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _fields(cls: type, kind: str = "key") -> str:
    comments = field_comments(cls)
    return table((kind, "meaning"), ((f"`{k}`", _plain(_sentence(v))) for k, v in comments.items()))
