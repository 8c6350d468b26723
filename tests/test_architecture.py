"""Who may import whom: the table of the design, read off the source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "skelfit"
# Everything may import `errors` and `files`, and the version from the package itself. `cli` may import all.
MAY_IMPORT: dict[str, set[str]] = {
    "__main__": {"cli"},
    "api": {
        "body",
        "config",
        "export",
        "fit",
        "job",
        "labels",
        "layout",
        "loader",
        "metrics",
        "people",
        "pipeline_choice",
        "shards",
    },
    "errors": set(),
    "files": set(),
    "heap": set(),
    "shipped": set(),
    "strict": set(),
    "pipeline_choice": {"config", "shipped"},
    # A configuration names DoFs.
    "config": {"body", "strict"},
    "body": set(),
    "fit": {"body", "config"},
    "labels": {"config", "world"},
    # Pickles are read without being run.
    "labels.columns": {"body", "config", "labels"},
    # The demo draws people, and so needs the body.
    "labels.demo": {"body", "labels"},
    "labels.render": {"body", "raster"},
    "filters": {"config", "labels"},
    # 4D-Humans' pickles, through the restricted unpickler; labels: what a file is that is no such tar.
    "tar_labels": {"body", "images", "labels"},
    "metrics": {"body"},
    "raster": set(),
    "images": {"config"},
    "layout": set(),
    "shards": {"config", "layout"},
    "lock": {"shards"},
    "sequences": {"body"},
    "world": set(),
    "plan": {"body", "config", "filters", "layout", "metrics", "shards", "strict"},
    "status": {"lock", "shards"},
    "people": {"body", "config", "filters", "fit", "labels", "layout", "metrics"},
    "subjects": {"config", "filters", "fit", "labels", "plan"},
    "job": {
        "body",
        "config",
        "filters",
        "fit",
        "images",
        "labels",
        "layout",
        "metrics",
        "people",
        "plan",
        "sequences",
        "shards",
        "subjects",
    },
    "cluster": {"heap", "job"},
    "card": {"body", "layout", "metrics", "shards"},
    "export": {"body", "keep", "layout", "metrics", "sequences", "shards", "world"},
    # Shards beside a label file: read as exports read them, measured as `verify` measures; labels: reads npz files.
    "compare": {"body", "distances", "export", "labels", "layout", "raster", "sequences", "shards", "verify"},
    "keep": set(),
    "camera": set(),
    "tensors": set(),
    "distances": set(),
    # Of the fit, the kernel that poses skins alone.
    "verify": {
        "body",
        "config",
        "distances",
        "fit",
        "images",
        "keep",
        "layout",
        "lock",
        "metrics",
        "sequences",
        "shards",
        "strict",
        "world",
    },
    # Shards to batches, for any trainer; strict: its own configuration.
    "loader": {"body", "images", "keep", "layout", "shards", "strict"},
    # What a network sees crops with; loader: how large a crop is.
    "backbones": {"loader", "tensors"},
    # Knows batches and bodies, nothing of the fit; distances, metrics: how far joints and angles are off.
    "train": {"backbones", "body", "camera", "distances", "loader", "metrics", "strict", "tensors"},
    # The trainer's network on photos; what exports have to write meshes, and not to replace what is there.
    "predict": {"body", "camera", "export", "images", "layout", "loader", "raster", "shards", "train"},
    "roofline": {"body", "config", "fit"},
    # device_report: a backend that counts.
    "bench": {"body", "config", "device_report", "fit", "labels", "roofline"},
    "device_report": {"bench", "body", "config", "fit", "labels"},
    "studies": {
        "bench",
        "body",
        "config",
        "fit",
        "images",
        "job",
        "labels",
        "layout",
        "loader",
        "people",
        "shards",
        # The pipeline of the baseline.
        "shipped",
        # What sequences are measured with.
        "verify",
    },
}
# Kernels import each other relatively.
KERNELS = {path.stem for path in (PACKAGE / "fit" / "kernels").glob("*.py")}
# Third-party packages that only one part knows, or few.
ONLY_IN = {
    "dask": "cluster",
    "distributed": "cluster",
    "click": "cli",
    "tqdm": "cli",
    "smplx": "body verify",
    "trimesh": "export",
    "matplotlib": "api card cli",
    "mpl_toolkits": "api",
    "transformers": "backbones",
    "safetensors": "tensors",
    "tensorboard": "train",
    "viser": "verify",
    "warp": "device_report fit verify",
}
NEVER = {"body_models", "chumpy", "opensim", "pytest"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and path.parent == PACKAGE / "fit" / "kernels" and node.module in KERNELS:
                continue  # of the kernels for as many lanes: see skelfit/fit/kernels/__init__.py
            assert node.level == 0, f"{path}: write imports from skelfit in full"
            assert node.module is not None
            # `from skelfit import cluster` imports a module, `from skelfit import __version__` does not.
            modules = [node.module]
            if node.module == "skelfit":
                modules = [f"skelfit.{a.name}" if a.name != "__version__" else "skelfit" for a in node.names]
            found |= set(modules)
    return found


MODULES = {
    module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"
}


def test_the_table_names_what_there_is() -> None:
    parts = {name.split(".")[0] for name in MODULES}
    assert parts == {name.split(".")[0] for name in MAY_IMPORT} | {"cli"}
    assert {name for name in MAY_IMPORT if "." in name} <= set(MODULES)


def test_the_map_names_every_module() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    of_their_own = {"cli", "studies", "body.open_body_build"}  # whose modules are named after what they do
    found = {name for name in MODULES if not any(name.startswith(f"{part}.") for part in of_their_own)} - {
        "__main__"
    }
    missing = {name for name in found if not re.search(rf"`{name.split('.')[-1]}[`/]", text)}
    assert not missing, f"docs/architecture.md does not name {sorted(missing)}"


def test_modules_import_what_they_may() -> None:
    wrong = []
    for name in MODULES:
        part = name.split(".")[0]
        if part == "cli":
            continue
        allowed = MAY_IMPORT.get(name, MAY_IMPORT[part]) | {part, "errors", "files"}
        imported = {m.split(".")[1] for m in imports_of(MODULES[name]) if m.startswith("skelfit.")}
        wrong += [f"{name} imports {other}" for other in sorted(imported - allowed)]
    assert not wrong, "\n".join(wrong)


def test_the_trainer_leads_nowhere_near_the_fit() -> None:
    """Nor does anything that it imports, or that those import."""
    seen: set[str] = set()
    todo = [name for name in MODULES if name.split(".")[0] in ("loader", "backbones", "train")]
    while todo:
        name = todo.pop()
        seen.add(name)
        imported = {m.removeprefix("skelfit.") for m in imports_of(MODULES[name]) if m.startswith("skelfit.")}
        todo += [m for m in imported & set(MODULES) if m not in seen]
    assert "body.skel" in seen and not {
        name for name in seen if name.split(".")[0] in ("fit", "job", "labels")
    }


def test_third_parties_stay_where_they_belong() -> None:
    wrong = []
    for name, path in MODULES.items():
        imported = {m.split(".")[0] for m in imports_of(path)}
        misplaced = {m for m in imported & set(ONLY_IN) if name.split(".")[0] not in ONLY_IN[m].split()}
        wrong += [f"{name} imports {other}" for other in sorted(misplaced | imported & NEVER)]
    assert not wrong, "\n".join(wrong)


def test_the_trainer_can_be_read_in_one_sitting() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (PACKAGE / "train").glob("*.py"))
    assert lines <= 1250
