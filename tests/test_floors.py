"""The import floors of DESIGN.md, read from the source with ast: a file imports only from below, or inside its own folder."""

import ast
import re
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

from tests import conftest

PACKAGE = Path(__file__).resolve().parents[1] / "rayprob"

# DESIGN.md section 2; a name is a wing, or a file at the root of the package.
FLOORS = (
    (
        "arrays",
        "errors",
        "labels",
        "registry",
        "plugins",
        "seeds",
        "text",
        "figures",
        "cluster",
        "processes",
        "signals",
        "config",
        "files",
        "images",
    ),
    ("data", "scenes"),
    ("loader", "probability", "metrics"),
    ("models",),
    ("runs",),
    ("train", "explain"),
    ("sweep", "calibrate", "predict", "report", "export", "doctor", "submit", "project"),
    ("systems", "serve"),
    ("api", "cli", "__main__"),
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
RAY_FILES = {
    "cluster.py",
    "train/worker.py",
    "train/on_ray.py",
    "sweep/trials.py",
    "serve/on_ray.py",
    "serve/router_on_ray.py",
    "serve/run_on_ray.py",
    "predict/on_ray.py",
    "doctor/on_ray.py",
    "submit/on_ray.py",
}
TORCH_FREE = {0, 1}
ONE_FAMILY = {0, 8}  # the words may use one another, and so may the front door


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def sources() -> dict[str, set[str]]:
    return {
        str(path.relative_to(PACKAGE)): imports(path) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "__init__"
    }


def part_of(relative: str) -> str:
    return relative.split("/")[0].removesuffix(".py")


def test_every_part_stands_on_a_floor() -> None:
    assert {part_of(name) for name in sources()} - {"__init__"} <= FLOOR.keys()


def test_imports_point_downwards() -> None:
    faults = []
    for name, found in sources().items():
        if name == "__init__.py":
            continue
        here = part_of(name)
        for module in found:
            if not module.startswith("rayprob.") or module == "rayprob.__version__":
                continue
            there = module.split(".")[1]
            same = here == there
            inside = FLOOR[here] == FLOOR[there] and FLOOR[here] in ONE_FAMILY
            if not same and not inside and FLOOR[there] >= FLOOR[here]:
                faults.append(f"{name} (F{FLOOR[here]}) imports {module} (F{FLOOR[there]})")
    assert not faults, "\n".join(faults)


def test_ray_is_imported_in_its_files_only() -> None:
    users = {name for name, found in sources().items() if any(module.split(".")[0] == "ray" for module in found)}
    assert users <= RAY_FILES


def test_the_lowest_floors_need_no_torch() -> None:
    faults = {
        name
        for name, found in sources().items()
        if name != "__init__.py"
        and FLOOR[part_of(name)] in TORCH_FREE
        and any(module.split(".")[0] in ("torch", "torchvision") for module in found)
    }
    assert not faults


def test_the_peers_are_independent() -> None:
    peers = ("loader", "probability", "metrics")
    for name, found in sources().items():
        if part_of(name) in peers:
            others = {f"rayprob.{peer}" for peer in peers if peer != part_of(name)}
            assert not {module for module in found if ".".join(module.split(".")[:2]) in others}, name


def test_no_modules_import_one_another_in_a_circle() -> None:
    modules = {"rayprob." + name.removesuffix(".py").replace("/", "."): found for name, found in sources().items()}
    graph = {name: {module_of(found, modules) for found in imported} - {name, None} for name, imported in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules


def module_of(imported: str, modules: Iterable[str]) -> str | None:
    """Return the module that an import names, itself or by one of its names; None for a package or another library."""
    return imported if imported in modules else imported.rpartition(".")[0] if imported.rpartition(".")[0] in modules else None


def test_no_path_repeats_itself() -> None:
    repeated = [name for name in sources() if len(parts := name.removesuffix(".py").split("/")) > 1 and parts[-1] == parts[-2]]
    assert not repeated


def defined(tree: ast.Module) -> Iterable[str]:
    """Yield the public classes of a module, nested ones too, and its names for types of arrays."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("NDArray["):
            yield from (ast.unparse(name) for name in node.targets)


def test_no_two_classes_and_no_two_types_of_arrays_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for name in defined(ast.parse(path.read_text())):
            homes.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_every_test_file_that_starts_ray_is_named_for_the_one_worker_that_does() -> None:
    tests = Path(__file__).parent
    found = {
        path.relative_to(tests).as_posix()
        for path in tests.rglob("test_*.py")
        if re.search(r"^@pytest\.mark\.ray$", path.read_text(), re.M)
    }
    assert found == {*conftest.RAY}
