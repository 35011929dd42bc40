"""What a device gets is for Python 3.6 and its standard library: syntax, imports, and names that came later."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from infra.edge.agent_bundle import device_files

RUNNER = "runner_onnxruntime.py"
TREE = {name: path for name, path in device_files().items() if name.endswith(".py")}
FILES = [pytest.param(path, id=name) for name, path in TREE.items()]

# top-level modules that came after 3.6
LATER = {"dataclasses", "contextvars", "_contextvars", "graphlib", "zoneinfo", "tomllib", "_zoneinfo"}
# names and arguments of what the agent imports that came after 3.6
LATER_NAMES = {
    "capture_output", "missing_ok", "removeprefix", "removesuffix", "fromisoformat", "time_ns", "monotonic_ns",
    "perf_counter_ns", "nullcontext", "ThreadingHTTPServer", "is_relative_to", "hardlink_to", "with_stem",
    "cached_property", "Protocol", "Final", "Literal", "TypedDict", "ParamSpec", "Annotated",
    "dirs_exist_ok", "file_digest", "pairwise", "batched", "prod", "dist", "isqrt", "posix_spawn", "create_server",
    "randbytes", "to_thread", "chdir", "aclosing",
}  # fmt: skip


def test_it_is_there() -> None:
    assert len(TREE) > 30
    assert {"edge/__init__.py", "edge/process.py", "edge/agent/__main__.py", "edge/tensorrt/build.py"} <= set(
        TREE
    )


@pytest.mark.parametrize("path", FILES)
def test_it_parses_as_python_3_6(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 6))


def test_newer_syntax_would_be_seen() -> None:
    for text in ("if (n := 1): pass", "def f(a, /): pass"):
        with pytest.raises(SyntaxError):
            ast.parse(text, feature_version=(3, 6))


@pytest.mark.parametrize("path", FILES)
def test_it_imports_the_standard_library_alone(path: Path) -> None:
    allowed = (set(sys.stdlib_module_names) - LATER) | (
        {"numpy", "onnxruntime"} if path.name == RUNNER else set()
    )
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
            assert node.module != "__future__", f"{path.name}: annotations came with 3.7"
        elif isinstance(node, ast.ImportFrom):
            assert _travels(path, node), f"{path.name}:{node.lineno} imports what a device does not get"
            continue
        else:
            continue
        for name in names:
            assert name.partition(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES)
def test_it_uses_no_name_that_came_later(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        name = {
            ast.Attribute: lambda n: n.attr,
            ast.keyword: lambda n: n.arg,
            ast.alias: lambda n: n.name,
        }.get(type(node), lambda n: None)(node)
        assert name not in LATER_NAMES, f"{path.name}:{getattr(node, 'lineno', '?')} uses {name}"
        # subscripted builtins and unions in annotations are evaluated: `list[int]`, `int | None`
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            assert node.value.id not in {"list", "dict", "tuple", "set", "type"}, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.FunctionDef):
            for part in [node.returns, *(a.annotation for a in node.args.args)]:
                assert not any(isinstance(n, ast.BinOp) for n in ast.walk(part)) if part else True, path.name


def _travels(path: Path, node: ast.ImportFrom) -> bool:
    """Whether all that is imported relatively is part of the tree."""
    base = path.parents[node.level - 1]
    stem = base.joinpath(*node.module.split(".")) if node.module else base
    if stem / "__init__.py" not in TREE.values():
        return stem.with_suffix(".py") in TREE.values()
    names = [alias.name for alias in node.names]
    return all(stem / f"{name}.py" in TREE.values() or name == "VERSION" for name in names)


def test_what_stays_behind_would_be_seen() -> None:
    agent, tensorrt = TREE["edge/agent/build.py"], TREE["edge/tensorrt/build.py"]
    for path, text, travels in (
        (agent, "from ..tensorrt import errors", True),
        (agent, "from ..tensorrt.plan import load_plan", True),
        (agent, "from . import VERSION", True),
        (agent, "from ..tensorrt import precision", False),
        (agent, "from ..tensorrt.typed import typed_graph", False),
        (agent, "from ..golden import INPUTS", False),
        (agent, "from .golden import INPUTS", False),
        (agent, "from ...store import client", False),
        (tensorrt, "from . import commands, logs", True),
        (tensorrt, "from . import commands, rtx", False),
        (tensorrt, "from ..process import run", True),
    ):
        (node,) = ast.parse(text).body
        assert isinstance(node, ast.ImportFrom)
        assert _travels(path, node) is travels, text
