"""Which sites may take part: one public key a file, in the server's folder.

    <folder>/sites/NAME.pub

The SuperLink keeps registrations in memory (its database costs four times the work per message) and is told of these files at
every start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from infra.federation.files import write_atomic
from infra.federation.real.certificates import load_site_public_key
from infra.federation.real.control import UNREGISTERED, Control
from models.errors import ConfigError, OutputError

_FOLDER: Final = "sites"


def members(folder: Path) -> dict[str, bytes]:
    """Public keys (PEM) by name.

    Raises:
        ConfigError: a file is not a site's public key.
    """
    return {path.stem: load_site_public_key(path) for path in sorted((folder / _FOLDER).glob("*.pub"))}


def admit(folder: Path, public: Path) -> str:
    """Let the site of this public key take part, under the file's name.

    Raises:
        ConfigError: it is no public key, or another one has this name, or this one another name.
        OutputError: the folder cannot be written.
    """
    key, name, known = load_site_public_key(public), public.stem, members(folder)
    if known.get(name, key) != key:
        raise ConfigError(
            f"{name} is registered with another key: unregister it first, or name the file differently"
        )
    if other := [n for n, k in known.items() if k == key and n != name]:
        raise ConfigError(f"the key of {public} is registered as {other[0]}: every site makes its own")
    path = folder / _FOLDER / f"{name}.pub"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, public.read_bytes())
    except OSError as err:
        raise OutputError(f"cannot write {path}: {err.strerror}") from None
    return name


def expel(folder: Path, name: str) -> bytes:
    """Let the site take part no more; returns its key.

    Raises:
        ConfigError: no site has this name.
    """
    known = members(folder)
    if name not in known:
        raise ConfigError(f"{name!r} is not registered, only {', '.join(known) or 'nobody'}")
    (folder / _FOLDER / f"{name}.pub").unlink()
    return known[name]


def announce(folder: Path, control: Control) -> None:
    """Make a running SuperLink know these sites and no others.

    Raises:
        ConfigError: as `members`.
        ServerError: it refuses.
    """
    wanted = set(members(folder).values())
    known = {n.public_key: n.node_id for n in control.nodes() if n.status != UNREGISTERED}
    for key in sorted(wanted - set(known)):
        control.register(key)
    for key in set(known) - wanted:
        control.unregister(known[key])
