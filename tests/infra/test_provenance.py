"""The code digest follows what a stage can reach, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import provenance
from models.errors import ConfigError


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package tree of its own under the name `models`: a → b (lazily) → c; d stands alone."""
    package = tmp_path / "models"
    package.mkdir()
    files = {
        "__init__.py": "",
        "a.py": "def f():\n    from models import b\n    return b.g()\n",
        "b.py": '"""Doc."""\nfrom .c import K\n\ndef g():\n    return K\n',
        "c.py": "K = 1\n",
        "d.py": "D = 1\n",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    monkeypatch.setattr(provenance, "_locate", lambda name: _find(tmp_path, name))
    return package


def _find(root: Path, name: str) -> Path | None:
    base = root.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def test_closure_follows_lazy_and_relative_imports(house: Path) -> None:
    assert set(provenance.import_closure(["models.a"])) >= {"models.a", "models.b", "models.c"}
    assert "models.d" not in provenance.import_closure(["models.a"])


def test_digest_changes_with_a_reached_module_only(house: Path) -> None:
    before = provenance.code_digest(["models.a"])
    (house / "d.py").write_text("D = 2\n")
    assert provenance.code_digest(["models.a"]) == before
    (house / "c.py").write_text("K = 2\n")
    assert provenance.code_digest(["models.a"]) != before


def test_prose_does_not_count(house: Path) -> None:
    before = provenance.code_digest(["models.a"])
    (house / "b.py").write_text(
        '"""Another text."""\nfrom .c import K  # why\n\n\ndef g():\n    """More."""\n    return K\n'
    )
    assert provenance.code_digest(["models.a"]) == before


def test_unknown_root_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no_such"):
        provenance.code_digest(["models.no_such"])


def test_resources_count(tmp_path: Path) -> None:
    template = tmp_path / "t.html"
    template.write_text("a")
    before = provenance.code_digest(["models.errors"], [template])
    template.write_text("b")
    assert provenance.code_digest(["models.errors"], [template]) != before
