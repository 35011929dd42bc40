"""The digest of the code a stage runs: its import closure among our own modules, and the lock file.

A revision would invalidate every stage on a README edit; this invalidates a stage when a module that it can reach changes, and
none when a comment, a docstring or an unrelated module does.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from infra.digest import digest_bytes, digest_file, digest_json
from models.errors import ConfigError

OURS = frozenset({"cryfed", "flows", "tasks", "models", "infra", "validation"})


def code_digest(roots: Iterable[str], resources: Iterable[Path] = ()) -> str:
    """Digest of the modules `roots`, everything of ours they import (at any depth, lazily too), and the lock file.

    Args:
        roots: dotted module names, e.g. `("models.pretrain",)`.
        resources: further files the stage reads, such as a template.

    Raises:
        ConfigError: a root is not a module of ours, or the lock file is missing.
    """
    modules = import_closure(roots)
    return digest_json(
        {
            "modules": {name: _source_digest(path) for name, path in sorted(modules.items())},
            "resources": {path.name: digest_file(path) for path in sorted(resources)},
            "lock": digest_file(lock_file()),
        }
    )


def import_closure(roots: Iterable[str]) -> dict[str, Path]:
    """Module name → source file, of `roots` and all of ours that they reach."""
    found: dict[str, Path] = {}
    queue = list(roots)
    for name in queue:
        if _locate(name) is None:
            raise ConfigError(f"{name!r} is not a module of ours: a stage names the modules that compute it")
    while queue:
        name = queue.pop()
        path = _locate(name)
        if name in found or path is None:
            continue
        found[name] = path
        queue.extend(_imports(name, path))
    return found


@cache
def lock_file() -> Path:
    """The lock file: beside the packages in a checkout, inside `infra` in an installed wheel."""
    here = Path(__file__).resolve().parent
    for candidate in (here.parent / "requirements.lock", here / "requirements.lock"):
        if candidate.is_file():
            return candidate
    raise ConfigError(f"requirements.lock is neither beside nor inside {here}: reinstall cryfed")


@cache
def _locate(name: str) -> Path | None:
    if name.split(".", 1)[0] not in OURS:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _imports(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _source_digest(path: Path) -> str:
    """Digest of the syntax tree without docstrings, so that prose may be edited freely."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:]
    return digest_bytes(ast.dump(tree).encode())
