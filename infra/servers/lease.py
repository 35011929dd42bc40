"""A server that ends with its last user: every user holds a shared file lock, and the last to leave stops it.

The lock falls with its holder, even on `kill -9`: what a killed user left running is found, and used, by the next one.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lease(folder: Path, on_last: Callable[[], None]) -> Iterator[None]:
    """Hold a share of whatever `folder` stands for; `on_last` runs when the last holder leaves.

    Entering waits while a last holder is leaving.
    """
    with (folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            if _alone(users.fileno()):
                on_last()


def _alone(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
