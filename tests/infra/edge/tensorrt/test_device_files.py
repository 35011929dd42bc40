"""What runs on the device: Python 3.6, standard library, no part of cryfed beside this folder."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import infra.edge.tensorrt as package

FOLDER = Path(package.__file__).parent
DEVICE = ("errors", "plan", "commands", "logs", "parity", "cache", "build")

# in the standard library, but not in 3.6's, or not with these names
NEWER = {"dataclasses", "importlib.metadata", "graphlib", "zoneinfo", "tomllib"}
NEWER_CALLS = {
    "removeprefix",
    "removesuffix",
    "is_relative_to",
    "capture_output",
    "missing_ok",
    "text",
    "with_stem",
}


@pytest.mark.parametrize("name", DEVICE)
def test_syntax_and_imports_are_those_of_python_3_6(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text(), feature_version=(3, 6))
    allowed = {f"infra.edge.tensorrt.{other}" for other in DEVICE} | {"infra.edge.tensorrt"}
    for node in ast.walk(tree):
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        for module in modules:
            assert module not in NEWER | {"__future__"}, f"{name}: {module} is not in 3.6"
            assert module in allowed or module.partition(".")[0] in sys.stdlib_module_names, (
                f"{name}: {module}"
            )
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", "")
            used = {called, *(keyword.arg for keyword in node.keywords)}
            assert not used & NEWER_CALLS, f"{name}: {used & NEWER_CALLS} came after 3.6"


@pytest.mark.parametrize("name", DEVICE)
def test_annotations_hold_no_later_generics(name: str) -> None:
    """`list[str]` and `str | None` are evaluated at definition in 3.6, and fail."""
    builtin = {"list", "dict", "tuple", "set", "frozenset", "type"}
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for note in (n for n in notes if n is not None):
            for part in ast.walk(note):
                assert not isinstance(part, ast.BinOp), f"{name}: union written with |"
                if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name):
                    assert part.value.id not in builtin, f"{name}: {part.value.id}[…]"
