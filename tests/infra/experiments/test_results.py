"""Lines of finished cells: on disk at once, found again, and a cut one dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.experiments.results import open_results
from models.errors import ConflictError, IntegrityError, OutputError


def test_what_is_added_is_found_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cells.jsonl"
    with open_results(path) as results:
        assert "a" not in results
        results.add("a", {"x": 1})
        assert path.read_bytes() == b'{"key":"a","x":1}\n'
    with open_results(path) as results:
        assert results["a"] == {"x": 1}


def test_a_line_cut_by_a_kill_is_dropped_and_the_next_one_stands_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_bytes(b'{"key":"a","x":1}\n{"key":"b","x"')
    with open_results(path) as results:
        assert "a" in results
        assert "b" not in results
        results.add("b", {"x": 2})
    assert path.read_bytes() == b'{"key":"a","x":1}\n{"key":"b","x":2}\n'


@pytest.mark.parametrize("line", [b"junk", b"[1]", b'{"x":1}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_bytes(b'{"key":"a"}\n' + line + b"\n")
    with pytest.raises(IntegrityError, match="line 2"), open_results(path):
        pass


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    with open_results(path), pytest.raises(ConflictError, match="another run"), open_results(path):
        pass
    with open_results(path):  # the lock goes with the run
        pass


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another"), open_results(tmp_path / "file" / "cells.jsonl"):
        pass
