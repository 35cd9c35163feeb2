"""The import rules of ARCHITECTURE.md, at the top of modules and inside functions alike."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"fer_ray": "fer_ray", "fer_ray.analysis": "analysis", "fer_ray.search_spaces": "search_spaces"}

ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "phases": set(),
    "config": {"phases"},
    "recipes": {"config"},
    "ablation": {"config", "recipes"},
    "labels": set(),
    "metrics": {"labels"},
    "space": {"config"},
    "results": {"config"},
    "proposals": {"results", "space"},
    "storage": {"s3"},
    "s3": {"data", "storage"},
    "cli": {"config"},
    "page": set(),
    "progress": set(),
    "faces": set(),
    "data": {"config", "labels", "faces", "progress"},
    "synthesis": {"config", "labels", "data", "faces"},
    "models": {"config", "phases"},
    "training": {"config", "phases", "data", "models", "metrics"},
    "experiment": {"config", "labels", "data"},
    "run_data": {"config", "data", "experiment", "models", "training"},
    "run": {"artifacts", "config", "metrics", "data", "experiment", "models", "run_data", "training", "results"},
    "artifacts": {"config", "metrics", "results", "training"},
    "trained": {"config", "labels", "data", "models", "results", "run", "run_data"},
    "diagnostics": {
        "config",
        "labels",
        "metrics",
        "cli",
        "page",
        "data",
        "experiment",
        "models",
        "trained",
        "training",
        "run",
    },
    "search_spaces": {"config", "space", "ablation"},
    "analysis": {"results", "phases", "proposals", "space", "labels", "metrics", "cli", "page"},
}
"""Room -> the other rooms it may import. Every room may import `errors`; one that is not listed (the commands, tuning)
may import all, and so may the `__main__` of a room, which is a command."""

LIBRARIES: dict[str, set[str]] = {
    "errors": set(),
    "config": {"pydantic"},
    "labels": set(),
    "metrics": {"numpy"},
    "space": set(),
    "results": {"pandas", "pyarrow"},
    "search_spaces": set(),
}
"""Room at the bottom of the house -> all that it may import from outside it and the standard library."""

KNOWN_TO: dict[str, set[str]] = {
    "ray": {"tuning", "bench"},
    "optuna": {"tuning", "proposals", "analysis"},
    "torch": {
        "data",
        "models",
        "training",
        "run",
        "run_data",
        "bench",
        "tuning",
        "synthesis",
        "synthesize",
        "diagnostics",
        "artifacts",
        "evaluate",
        "trained",
    },
    "torchvision": {"data", "models", "training"},
    "timm": {"models"},
    "cv2": {"faces", "data", "synthesis", "synthesize"},
}
"""Heavy library -> the rooms that know it."""

LIGHT = {
    "fer_ray.config": {"numpy", "pandas", "torch", "ray"},
    "fer_ray.space": {"numpy", "pandas", "torch", "ray"},
    "fer_ray.models.zoo": {"torch", "torchvision", "timm", "ray"},
    "fer_ray.results": {"torch", "ray"},
    "fer_ray.storage": {"pyarrow", "torch", "ray"},
    "fer_ray.s3": {"pandas", "torch", "ray"},
    "fer_ray.cli": {"torch", "ray"},
    "fer_ray.sweep": {"torch", "ray"},
    "fer_ray.train": {"torch", "ray"},
    "fer_ray.synthesize.__main__": {"torch", "ray"},
    "fer_ray.data.__main__": {"torch", "ray"},
    "fer_ray.analysis": {"torch", "ray"},
    "fer_ray.analysis.__main__": {"torch", "ray"},
}
"""Module -> what importing it must not load: help texts and typo checks come at once, results need no GPU stack."""


def modules() -> dict[str, Path]:
    """Every module of the project by its full name; a package by the name of its `__init__`."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()


def room_of(name: str) -> str:
    """`fer_ray.data.readers.images` is in room `data`; the top of the package in none."""
    return name.partition(".")[2].partition(".")[0]


def imports(name: str, path: Path) -> Iterator[str]:
    """Full names of all that a module imports, anywhere in it; `from a import b` counts as `a.b`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{source}.{alias.name}" for alias in node.names)


def imported_rooms(name: str) -> set[str]:
    rooms = {room_of(item) for item in imports(name, MODULES[name]) if item.startswith("fer_ray.")}
    return {room for room in rooms if not room.startswith("__")}


def imported_libraries(name: str) -> set[str]:
    return {item.partition(".")[0] for item in imports(name, MODULES[name])} - {"fer_ray"}


def test_the_rules_find_the_project() -> None:
    assert {"fer_ray.config", "fer_ray.metrics", "fer_ray.analysis", "fer_ray.search_spaces.ratios"} <= MODULES.keys()
    assert imported_rooms("fer_ray.space") <= {"config"}
    assert "numpy" in imported_libraries("fer_ray.metrics")


def test_imports_are_found_wherever_and_however_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "loop.py"
    path.write_text(
        "import os.path\nfrom . import x\ndef f():\n    from ray import tune\n    from ..data import mixing\n"
    )
    found = list(imports("fer_ray.training.loop", path))
    assert found == ["os.path", "fer_ray.training.x", "ray.tune", "fer_ray.data.mixing"]


@pytest.mark.parametrize("name", [n for n in MODULES if room_of(n) in ROOMS and not n.endswith("__main__")])
def test_a_room_imports_only_the_rooms_it_may(name: str) -> None:
    room = room_of(name)
    assert imported_rooms(name) <= ROOMS[room] | {room, "errors"}


@pytest.mark.parametrize("name", [name for name in MODULES if room_of(name) in LIBRARIES])
def test_the_bottom_of_the_house_needs_few_libraries(name: str) -> None:
    assert imported_libraries(name) - sys.stdlib_module_names <= LIBRARIES[room_of(name)]


@pytest.mark.parametrize("library", KNOWN_TO)
def test_a_heavy_library_is_known_to_its_rooms_only(library: str) -> None:
    strangers = [name for name in MODULES if library in imported_libraries(name)]
    assert [name for name in strangers if room_of(name) not in KNOWN_TO[library]] == []


@pytest.mark.parametrize("name", [name for name in LIGHT if name in MODULES])
def test_light_modules_load_nothing_heavy(name: str) -> None:
    code = f"import sys, {name}; print(*sorted(set(sys.modules) & set(sys.argv[1:])))"
    done = subprocess.run([sys.executable, "-c", code, *LIGHT[name]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_all_that_is_public_in_it_says_what_it_is(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    silent = [node.name for node in definitions if not node.name.startswith("_") and not ast.get_docstring(node)]
    assert ast.get_docstring(tree), f"{name} has no docstring"
    assert silent == []
