"""What tasks share inside one process: settings, the store, the Ray cluster, the board. Never passed between tasks.

A task that runs in a process of its own (another task runner, a retry after a crash) opens its own from the settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from infra.compute import Cluster, cluster
from infra.settings import Settings, load_settings
from infra.store.content import DirectoryContent, S3Content
from infra.store.embedded import open_store
from models.errors import ManifestError
from tasks.progress import Board

_SITE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_current: Runtime | None = None


class Runtime:
    """Opened by `open_runtime`; the Ray cluster starts when a task first asks for it."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        self.work = settings.work_dir.resolve()
        self.board = Board()
        self._stack = stack
        self.store = stack.enter_context(open_store(settings.store, self.work))
        self.content = S3Content(self.store, self.work / "cache")
        self._cluster: Cluster | None = None

    @property
    def scratch(self) -> Path:
        """Where stages work before they are filed."""
        return self.work / "scratch"

    def site_folder(self, site: str) -> Path:
        """A site's own folder: features, token caches and calibration stay in it.

        Raises:
            ManifestError: the name cannot be a folder's.
        """
        if not _SITE_NAME.fullmatch(site):
            raise ManifestError(
                f"site {site!r} cannot name a folder: use letters, digits, '.', '_' and '-' alone"
            )
        return self.work / "sites" / site

    def site_content(self, site: str) -> DirectoryContent:
        """The site's own artifact store, never the shared one."""
        return DirectoryContent(self.site_folder(site) / "artifacts")

    def cluster(self) -> Cluster:
        """The run's Ray cluster."""
        if self._cluster is None:
            self._cluster = self._stack.enter_context(cluster(self.settings.compute))
        return self._cluster


@contextmanager
def open_runtime(settings: Settings | None = None) -> Iterator[Runtime]:
    """The process's runtime; nested calls share the outermost one."""
    global _current  # noqa: PLW0603 - one runtime a process, as one Ray driver a process
    if _current is not None:
        yield _current
        return
    with ExitStack() as stack:
        _current = Runtime(settings or load_settings(), stack)
        try:
            yield _current
        finally:
            _current = None


def runtime() -> Runtime:
    """The open runtime.

    Raises:
        RuntimeError: outside `open_runtime`; flows open it around their tasks.
    """
    if _current is None:
        raise RuntimeError("no runtime is open in this process: call tasks inside `open_runtime()`")
    return _current
