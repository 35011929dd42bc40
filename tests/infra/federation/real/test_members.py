"""Who may take part: files that a restart reads again, and a SuperLink that is told of exactly these."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.federation.real.certificates import load_site_public_key, make_site
from infra.federation.real.control import Node
from infra.federation.real.members import admit, announce, expel, members
from models.errors import ConfigError


def public(folder: Path, name: str) -> Path:
    return make_site(folder, name)[1]


def test_sites_come_go_and_come_back_with_another_key(tmp_path: Path) -> None:
    server, first, second = (
        tmp_path / "server",
        public(tmp_path / "a", "ward"),
        public(tmp_path / "b", "ward"),
    )
    assert members(server) == {}
    assert admit(server, first) == admit(server, first) == "ward"
    assert members(server) == {"ward": load_site_public_key(first)}
    with pytest.raises(ConfigError, match="ward is registered with another key"):
        admit(server, second)
    twin = tmp_path / "twin.pub"
    twin.write_bytes(first.read_bytes())
    with pytest.raises(ConfigError, match="is registered as ward"):
        admit(server, twin)
    with pytest.raises(ConfigError, match="'none' is not registered, only ward"):
        expel(server, "none")
    assert expel(server, "ward") == load_site_public_key(first)
    assert members(server) == {}
    admit(server, second)
    assert members(server) == {"ward": load_site_public_key(second)}


def test_what_is_no_public_key_is_not_admitted(tmp_path: Path) -> None:
    private, _ = make_site(tmp_path, "ward")
    with pytest.raises(ConfigError, match="is not a site's public key"):
        admit(tmp_path / "server", private)
    assert not (tmp_path / "server").exists()


class Known:
    """A SuperLink's registrations."""

    def __init__(self, keys: list[bytes]) -> None:
        self.list = [Node(i, key, "online") for i, key in enumerate(keys)]

    def nodes(self) -> list[Node]:
        return self.list

    def register(self, key: bytes) -> int:
        self.list.append(Node(len(self.list), key, "registered"))
        return len(self.list) - 1

    def unregister(self, number: int) -> None:
        self.list[number] = Node(number, self.list[number].public_key, "unregistered")


def test_a_superlink_knows_these_and_no_others(tmp_path: Path) -> None:
    paths = [public(tmp_path, name) for name in ("old", "stays", "new")]
    for path in paths[1:]:
        admit(tmp_path / "server", path)
    keys = [load_site_public_key(path) for path in paths]
    link = Known(keys[:2])
    for _ in range(2):
        announce(tmp_path / "server", link)  # type: ignore[arg-type]
        assert [(node.public_key, node.status) for node in link.list] == [
            (keys[0], "unregistered"),
            (keys[1], "online"),
            (keys[2], "registered"),
        ]
    admit(tmp_path / "server", paths[0])  # one that left and comes back is registered anew
    announce(tmp_path / "server", link)  # type: ignore[arg-type]
    assert [n.status for n in link.list if n.public_key == keys[0]] == ["unregistered", "registered"]
