"""The text of a card: Markdown with front matter for Hugging Face."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.exports.dataset_card.card_facts import SubsetFacts
from skelfit.shards.label_vector import COORDINATES, schema
from skelfit.shards.row_status import remark_on_targets
from skelfit.storage.locations import Location

CARD_NAME = "README.md"  # what the Hub shows of a dataset
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_MODELS = (
    "SMPL ([smpl.is.tue.mpg.de](https://smpl.is.tue.mpg.de)) and SKEL "
    "([skel.is.tue.mpg.de](https://skel.is.tue.mpg.de)) are licensed by their authors; the parameters here are of use "
    "only with those models, which are no part of this dataset"
)
_METHODS = (
    "Keller et al.: From Skin to Skeleton: Towards Biomechanically Accurate 3D Digital Humans, ACM TOG 2023 (SKEL)",
    "Loper et al.: SMPL: A Skinned Multi-Person Linear Model, ACM TOG 2015",
    "Xia et al.: Reconstructing Humans with a Biomechanically Accurate Skeleton, CVPR 2025 (HSMR; the joint limits)",
)


def card_text(
    subsets: Sequence[SubsetFacts],
    title: str,
    folder: Location,
    angles: str,
    errors: str,
    front: Mapping[str, Any] = MappingProxyType({}),
    sections: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """The card of these runs for `folder`; angles and errors: paths of the pictures, relative to it.

    front: more keys of the front matter, or other values for some; sections: paragraphs by heading, which come first.
    """
    matter = {**_front_matter(subsets, title, folder), **front}
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        *_introduction(subsets),
        *(part for heading, texts in sections.items() for part in (f"## {heading}", *texts)),
        "## Sources and licences",
        *_sources(subsets),
        "## What became of the rows",
        *_rows(subsets),
        "## Accuracy",
        *_accuracy(subsets, errors),
        "## Joint angles",
        *_angles(subsets, angles),
        "## Format",
        *_format(subsets, folder),
        "## How it was made",
        *_making(subsets),
        "## Citation",
        *_citations(subsets),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(subsets: Sequence[SubsetFacts], title: str, folder: Location) -> dict[str, Any]:
    people = sum(subset.rows.rows_out for subset in subsets)
    size = next((name for limit, name in _SIZES if people < limit), "n>10M")
    return {
        "pretty_name": title,
        "license": "unknown",  # a user may give one; those of the sources are in the text
        "tags": ["webdataset", "biomechanics", "human-mesh-recovery", "skel", "smpl", "pseudo-ground-truth"],
        "size_categories": [size],
        "configs": [
            {
                "config_name": subset.name,
                "data_files": [{"split": "train", "path": _path(subset, folder) + f"{subset.name}-*.tar"}],
            }
            for subset in subsets
        ],
    }


def _path(subset: SubsetFacts, folder: Location) -> str:
    """The path from the card to the shards: '', or a path that ends in '/'."""
    if not (isinstance(subset.folder, Path) and isinstance(folder, Path)):
        return "" if subset.folder == folder else f"{subset.folder}/"
    path = Path(os.path.relpath(subset.folder, folder)).as_posix()
    return "" if path == "." else f"{path}/"


def _introduction(subsets: Sequence[SubsetFacts]) -> Iterator[str]:
    people, rows = (sum(getattr(s.rows, name) for s in subsets) for name in ("rows_out", "rows_in"))
    with_image = sum(s.rows.images["found"] for s in subsets)
    yield (
        f"SKEL pseudo-ground-truth for **{people:,} people**: the skin of SMPL labels, driven by the 46 anatomical "
        f"degrees of freedom of the SKEL skeleton, fitted by skelfit from {rows:,} labels. "
        f"{_share(with_image, people)} come with their image."
    )
    titles = "subset, people, labels, kept, PVE in mm: mean, median, 95 %, with image, shards, size"
    lines = []
    for s in subsets:
        pve = s.rows.pve.to_json()
        size = f"{s.bytes / 1e6:,.0f} MB" if s.bytes < 1e9 else f"{s.bytes / 1e9:,.1f} GB"
        counts = [f"{s.rows.rows_out:,}", f"{s.rows.rows_in:,}", _share(s.rows.rows_out, s.rows.rows_in)]
        errors = [_mm(pve[name]) for name in ("mean", "p50", "p95")]
        lines.append([s.name, *counts, *errors, f"{s.rows.images['found']:,}", str(s.shards), size])
    yield markdown_table(titles.split(", "), lines, left=1)
    yield "PVE is the mean distance of SKEL's 6890 skin vertices to SMPL's."


def _sources(subsets: Sequence[SubsetFacts]) -> Iterator[str]:
    for s in subsets:
        if description := s.summary.get("description"):
            yield f"**{s.name}**: {' '.join(description.split())}"
    lines = [
        [s.name, origin["of"], _link(origin), origin.get("license") or "not stated"]
        for s in subsets
        for origin in s.origins
    ]
    if lines:
        yield markdown_table(("subset", "what", "from", "licence"), lines, left=4)
    nameless = [s.name for s in subsets if not s.origins]
    if nameless:
        yield f"The manifest of {', '.join(nameless)} names no origin and no licence."
    yield f"{_MODELS}."
    header = ("subset", "label file", "rows", "layout", "sha256")
    lines = []
    for s in subsets:
        for label in s.identity["labels"]:
            line = [s.name, f"`{label['name']}`", f"{label['rows']:,}"]
            lines.append([*line, str(label.get("source") or ""), f"`{label['sha256'][:16]}`"])
    yield markdown_table(header, lines, left=2)


def _rows(subsets: Sequence[SubsetFacts]) -> Iterator[str]:
    statuses = sorted({status for s in subsets for status in s.rows.statuses}, key=lambda x: (x != "ok", x))
    lines = [[s.name, *(f"{s.rows.statuses[status]:,}" for status in statuses)] for s in subsets]
    yield markdown_table(("subset", *(f"`{status}`" for status in statuses)), lines, left=1)
    yield (
        "People of status `ok` and `limit_violation` are in the tars; every row, also of the others, is in a "
        "`.rows.jsonl` with its reason."
    )
    frames = [f"those of {s.name} are frames of {s.sequences:,} sequence(s)" for s in subsets if s.sequences]
    if frames:
        yield f"Rows in time: {', '.join(frames)}."
    reasons = [
        [s.name, f"`{reason}`", f"{count:,}"]
        for s in subsets
        for reason, count in sorted(s.summary.get("rejected", {}).items(), key=lambda item: -item[1])[:8]
    ]
    if reasons:
        yield "Rows left out, by their most frequent reasons:"
        yield markdown_table(("subset", "reason", "rows"), reasons, left=2)
    filters = [
        [s.name, f"`{rule}`", f"{about['value']:g}", f"{about['rows']:,}"]
        for s in subsets
        for rule, about in s.summary.get("filters", {}).items()
    ]
    if filters:
        yield "Filters that were on, and how many rows each left out or changed:"
        yield markdown_table(("subset", "filter", "value", "rows"), filters, left=2)
    else:
        yield "No filter was on."


def _accuracy(subsets: Sequence[SubsetFacts], picture: str) -> Iterator[str]:
    yield f"![Share of the people below each error]({picture})"
    steps = list(dict.fromkeys(step for s in subsets for step in s.rows.betas))
    header = (
        *("subset", "PVE in mm: mean", "median", "95 %", "max"),
        *(f"at rest, {step}" for step in steps), "SKEL bodies",
    )  # fmt: skip
    lines = []
    for s in subsets:
        numbers = [_mm(value) for value in s.rows.pve.to_json().values()]
        rest = [_mm(s.rows.betas[step].mean()) if step in s.rows.betas else "" for step in steps]
        bodies = ", ".join(f"{count:,} {gender}" for gender, count in sorted(s.rows.skel_genders.items()))
        lines.append([s.name, *numbers, *rest, bodies])
    yield markdown_table(header, lines, left=1)
    for s in subsets:
        if remark := remark_on_targets(s.identity):
            yield f"{s.name}: {remark}."
    yield (
        "\"At rest\" is the distance of the two unposed skins (RMS, mm): what the difference of SMPL's and SKEL's "
        "shape spaces leaves, whatever the pose. Each person's errors are in its label vector and in the `.rows.jsonl`."
    )


def _angles(subsets: Sequence[SubsetFacts], picture: str) -> Iterator[str]:
    read, people = sum(len(s.poses) for s in subsets), sum(s.rows.rows_out for s in subsets)
    people_text = "all people" if read == people else f"{read:,} of the people, of shards evenly spread"
    yield f"![Histograms of the 46 joint angles]({picture})"
    yield (
        f"The 46 angles of {people_text}, in degrees; the tinted background is beyond the joint limits. The three of "
        "the pelvis turn the body into the coordinates of the labels: a person upright before a camera has a tilt of "
        "180 degrees."
    )


def _format(subsets: Sequence[SubsetFacts], folder: Location) -> Iterator[str]:
    first = subsets[0]
    yield (
        "[WebDataset](https://github.com/webdataset/webdataset) tars. A sample has `KEY.label.npy` (a flat float32 "
        "vector), `KEY.meta.json` (where it comes from) and, where there is one, the image under its own ending."
    )
    layout = schema()
    lines = [
        [f"`{f['name']}`", str(f["offset"]), " x ".join(map(str, f["shape"])), f["unit"], f["meaning"]]
        for f in layout["fields"]
    ]
    yield markdown_table(("part", "offset", "shape", "unit", "meaning"), lines, left=5)
    yield f"Layout `{layout['layout']}`, {layout['size']} numbers. The order of the 46 angles:"
    yield ", ".join(f"`{name}`" for name in DOF_NAMES)
    texts = {
        "labels": "from the label files",
        "skel": "regressed from the fitted skin",
        "none": "unknown (confidence 0)",
    }
    yield f"3D keypoints: {_shares(subsets, 'keypoints3d', texts)}. Each sample's metadata says which (`keypoints3d`)."
    texts = {name: f"`{name}` ({meaning})" for name, meaning in COORDINATES.items()}
    yield f"Poses, translations and points are in coordinates {_shares(subsets, 'coordinates', texts)}."
    path = _path(first, folder)
    yield (
        "```python\nimport json, webdataset\n\n"
        f'parts = {{f["name"]: f for f in json.load(open("{path}schema.json"))["fields"]}}\n'
        f'for sample in webdataset.WebDataset("{path}{first.name}-000000.tar", shardshuffle=False).decode("pil"):\n'
        '    part = parts["skel_poses"]\n'
        '    poses = sample["label.npy"][part["offset"] : part["offset"] + part["size"]].reshape(part["shape"])\n```'
    )


def _making(subsets: Sequence[SubsetFacts]) -> Iterator[str]:
    header = "subset, pipeline, algorithm version, body models, joint limits, identity".split(", ")
    lines = []
    for s in subsets:
        about = s.identity
        pipeline, models = f"`{about['pipeline']['name']}`", f"`{about['models_sha256'][:12]}`"
        identity = f"`{s.summary['identity_sha256'][:12]}`"
        lines.append([s.name, pipeline, f"{about['algorithm']}", models, f"`{about['limits']}`", identity])
    yield markdown_table(header, lines, left=6)
    yield (
        "Each person is fitted on its own (Levenberg-Marquardt on the skin: lower body, upper body, full body; the "
        "root is exact). The done marker beside each tar holds its sha256 and everything that its numbers depend on. "
        "skelfit wrote this card from the shards."
    )


def _citations(subsets: Sequence[SubsetFacts]) -> Iterator[str]:
    citations = [origin["citation"] for s in subsets for origin in s.origins if origin.get("citation")]
    yield "Please cite the sources and the models:"
    yield "\n".join(f"- {text}" for text in dict.fromkeys([*citations, *_METHODS]))


def _shares(subsets: Sequence[SubsetFacts], name: str, texts: Mapping[str, str]) -> str:
    """The shares of the values of a metadata key, as text."""
    counts: Counter[str] = Counter()
    for subset in subsets:
        counts.update(subset.metadata_counts[name])
    total = counts.total()
    return ", ".join(f"{_share(counts[key], total)} {text}" for key, text in texts.items() if counts[key])


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table; the first `left` columns to the left, the others to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in (header, rule, *lines))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _link(origin: Mapping[str, str]) -> str:
    return f"[{origin['name']}]({origin['url']})" if origin.get("url") else origin["name"]


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
