"""How the parts of skelfit depend on each other: a few contracts, one test each."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skelfit"
# From the bottom to the top: a part imports itself and those before it. On the way from a label file to a tar a row
# goes through them in this order.
ORDER = (
    "errors resources storage bodies config fitting labels images shards conversion executors "
    "verification refining exports publishing learning protocols benchmark api cli __main__"
).split()
# Third-party packages that only one part knows, or few.
ONLY_IN = {
    "dask": "executors",
    "distributed": "executors",
    "click": "cli",
    "rich": "cli",
    "tqdm": "cli executors",
    "smplx": "bodies verification",
    "trimesh": "bodies exports storage",
    "matplotlib": "api exports learning cli",
    "mpl_toolkits": "api",
    "pyarrow": "exports publishing",
    "huggingface_hub": "publishing",
    "safetensors": "storage",
    "tensorboard": "learning",
    "viser": "verification",
    "av": "learning",
    "warp": "benchmark fitting verification",
}
NEVER = {"body_models", "chumpy", "opensim", "pytest", "tools"}
KERNELS = PACKAGE / "fitting" / "backends" / "kernels"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"
}


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and path.parent == KERNELS:
                continue  # of the kernels for as many lanes: see kernels/__init__.py
            assert node.level == 0, f"{path}: write imports from skelfit in full"
            assert node.module is not None
            if node.module == "skelfit":
                imported |= {f"skelfit.{a.name}" for a in node.names if a.name != "__version__"}
            else:
                imported.add(node.module)
    return imported


def parts_of(name: str) -> set[str]:
    """The other parts of skelfit that a module imports."""
    imported = {m.split(".")[1] for m in imports_of(MODULES[name]) if m.startswith("skelfit.")}
    return imported - {name.split(".")[0]}


def test_no_module_imports_upward() -> None:
    assert {name.split(".")[0] for name in MODULES} <= set(ORDER)
    wrong = [
        f"{name} imports {part}"
        for name in MODULES
        for part in sorted(parts_of(name))
        if ORDER.index(part) > ORDER.index(name.split(".")[0])
    ]
    assert not wrong, "\n".join(wrong)


def test_the_trainer_leads_nowhere_near_the_fit() -> None:
    """Nor does anything that it imports, or that those import."""
    seen: set[str] = set()
    todo = [name for name in MODULES if name.startswith("learning.") and ".inference" not in name]
    while todo:
        name = todo.pop()
        seen.add(name)
        imported = {m.removeprefix("skelfit.") for m in imports_of(MODULES[name]) if m.startswith("skelfit.")}
        todo += [m for m in imported & set(MODULES) if m not in seen]
    assert "bodies.skel" in seen
    assert not {name for name in seen if name.split(".")[0] in ("fitting", "labels", "conversion")}


def test_third_parties_stay_where_they_belong() -> None:
    wrong = []
    for name, path in MODULES.items():
        imported = {m.split(".")[0] for m in imports_of(path)}
        misplaced = {m for m in imported & set(ONLY_IN) if name.split(".")[0] not in ONLY_IN[m].split()}
        wrong += [f"{name} imports {other}" for other in sorted(misplaced | imported & NEVER)]
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_share_a_name() -> None:
    names = Counter(name.split(".")[-1] for name in MODULES)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_loose_module_but_the_face_and_errors() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} <= {"__init__", "__main__", "api", "errors"}


def test_the_map_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert {name for name in folders if f"`{name}/`" not in text} == set()


def test_the_trainer_can_be_read_in_one_sitting() -> None:
    parts = [PACKAGE / "learning" / part for part in ("training", "networks")]
    lines = sum(len(path.read_text().splitlines()) for part in parts for path in part.glob("*.py"))
    assert lines <= 1700
