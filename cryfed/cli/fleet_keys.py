"""`cryfed keys` and `cryfed sign-off`: who may say what in a fleet, and saying it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from infra.edge.fleet_documents import FleetDocuments
    from infra.edge.fleet_home import FleetHome
    from infra.edge.trust.documents import Role, RootDocument
    from infra.edge.trust.envelope import Envelope
    from infra.edge.trust.trusted import TrustedRoot
    from infra.store.registry import Release

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Keys of a fleet: who may release, who may sign off, who may deploy.

A device believes a document only if enough holders of its role signed it: **root** says who holds which role, **release** that a
release is ours, **clinical** that it may be used on this fleet's infants, **fleet** which devices run it. Private keys lie in
CRYFED_KEYS_DIR/FLEET (by default ~/.config/cryfed/keys/FLEET), readable by you alone, and go nowhere.

```
cryfed keys init ward-a                             # keys for every role, and root 1
cryfed keys add-device ward-a cot-7 --hardware jetson-nano --key cot-7.pub
cryfed keys state ward-a DIGEST                     # this release is ours: DIGEST as its run printed it
cryfed sign-off ward-a DIGEST --key clinical-1 --by "Dr A. Jones" --statement "…"
cryfed keys rotate ward-a release --retire release-1 --new release-2
```

Move the root keys to two people's machines before the fleet is of any worth: who holds them holds everything.
""",
)

_Fleet = Annotated[str, typer.Argument(help="Name of the fleet.")]
_Digest = Annotated[
    str,
    typer.Argument(
        help="The release's digest, 64 hex digits, as its run and report give it; a name is what the store says."
    ),
]


@app.command()
def init(
    fleet: _Fleet,
    root_keys: Annotated[int, typer.Option(min=1, max=16, help="Root keys to make.")] = 3,
    root_threshold: Annotated[int, typer.Option(min=1, max=16, help="How many of them have to sign.")] = 2,
    root_key: Annotated[
        list[Path] | None,
        typer.Option(help="Public root key of somebody else (repeat); counts towards --root-keys."),
    ] = None,
    clinical_key: Annotated[
        Path | None, typer.Option(help="The clinician's public key; default: one is made here.")
    ] = None,
) -> None:
    """Make a fleet: a key for each role, and root 1 in the store that says so.

    Others' keys come as the .pub files that `cryfed keys make` wrote on their machines. With others' root keys the root may need
    their signatures before it counts: it is then left as a draft for `cryfed keys countersign`.
    """
    from infra.edge.fleet_home import read_public_file
    from infra.edge.fleet_signing import first_root

    with _open(fleet) as at:
        _require_new(at)
        strangers = [read_public_file(path) for path in root_key or ()]
        own = max(0, root_keys - len(strangers))
        names = [f"root-{i + 1}" for i in range(own)]
        roots = [at.home.own_key(name).public for name in names] + strangers
        clinical = read_public_file(clinical_key) if clinical_key else at.home.own_key("clinical-1").public
        holders: dict[Role, list[Any]] = {
            "root": roots,
            "release": [at.home.own_key("release-1").public],
            "clinical": [clinical],
            "fleet": [at.home.own_key("fleet-1").public],
        }
        thresholds: dict[Role, int] = {"root": root_threshold, "release": 1, "clinical": 1, "fleet": 1}
        _settle(at, first_root(fleet, holders, thresholds, now=at.now), before=None)
    typer.echo(
        f"keys: {at.home.folder}  (readable by you alone; keep a copy of the root keys off this machine)"
    )


@app.command()
def make(
    fleet: _Fleet,
    name: Annotated[str, typer.Argument(help="What to call it, e.g. clinical-2 or root-anna.")],
) -> None:
    """Make a key of one's own, to be given a role by `init` or `rotate`. Hand on the .pub file, never the .pem."""
    from infra.edge.fleet_home import FleetHome

    home = FleetHome(_folder(fleet))
    key = home.make_key(name)
    typer.echo(f"{home.folder / name}.pub  {key.keyid}")


@app.command()
def rotate(
    fleet: _Fleet,
    role: Annotated[str, typer.Argument(help="root, release, clinical or fleet.")],
    retire: Annotated[
        list[str] | None,
        typer.Option(help="Key to retire: its name here, or the beginning of its id (repeat)."),
    ] = None,
    new: Annotated[
        str | None, typer.Option(help="Make a key of this name here and give it the role.")
    ] = None,
    add: Annotated[list[Path] | None, typer.Option(help="Public key to give the role (repeat).")] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, help="How many have to sign from now on; default: as before.")
    ] = None,
) -> None:
    """Exchange keys of a role by a new root. With no key named, it only begins a new term for the same ones.

    The new root is signed with the root keys at hand; where others have to sign too, it is left as a draft. What a retired key
    has signed counts no more: `cryfed keys state` and `cryfed sign-off` renew it.
    """
    from infra.edge.fleet_home import read_public_file
    from infra.edge.fleet_signing import next_root

    with _open(fleet) as at:
        trust = at.home.trust(at.documents, now=at.now)
        kind = _role(role)
        gone = [_identify(at, trust.root, kind, text) for text in retire or ()]
        added = [read_public_file(path) for path in add or ()]
        if new is not None:
            added.append(at.home.own_key(new).public)
        root = next_root(trust.root, kind, retire=gone, add=added, threshold=threshold, now=at.now)
        _settle(at, root, before=trust)


@app.command()
def countersign(
    fleet: _Fleet,
    draft: Annotated[Path, typer.Argument(help="A root that waits for signatures.")],
) -> None:
    """Sign a root that another drafted, and publish it once enough have. Look at what it says before you do."""
    from infra.edge.fleet_home import read_draft

    with _open(fleet) as at:
        envelope, root = read_draft(draft)
        first = root.version == 1 and not at.home.versions()
        before = None if first else at.home.trust(at.documents, now=at.now)
        for line in _describe(root, at.home):
            typer.echo(line)
        _settle(at, root, before=before, envelope=envelope)


@app.command()
def show(
    fleet: _Fleet, as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False
) -> None:
    """Who holds which role, until when, and which devices there are."""
    with _open(fleet) as at:
        trust = at.home.trust(at.documents, now=at.now)
        inventory = at.documents.inventory(trust, adopt=True)
        desired = at.documents.desired_version(trust)
    devices = {} if inventory is None else {n: d.hardware for n, d in sorted(inventory.devices.items())}
    if as_json:
        here = {k.keyid: k.name for k in at.home.keys().values()}
        document = {
            "fleet": fleet, "root": trust.root.model_dump(mode="json"), "keys_here": here,
            "desired": desired, "devices": devices,
        }  # fmt: skip
        typer.echo(json.dumps(document, indent=2, sort_keys=True))
        return
    for line in _describe(trust.root, at.home):
        typer.echo(line)
    typer.echo(f"desired state: {f'version {desired}' if desired else 'none yet'}")
    typer.echo(f"devices: {len(devices)}")
    for name, hardware in devices.items():
        typer.echo(f"  {name}  {hardware}")


@app.command("add-device")
def add_device(
    fleet: _Fleet,
    device: Annotated[str, typer.Argument(help="The device's id.")],
    hardware: Annotated[
        str, typer.Option(help="What it is, e.g. jetson-nano; releases name what they run on.")
    ],
    key: Annotated[
        Path, typer.Option(help="The device's public key (PEM): its reports are verified with it.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="It is there already; give it this key.")
    ] = False,
) -> None:
    """Enter a device into the fleet's inventory, with the fleet key. A deployment reaches only devices that are in it."""
    from pydantic import ValidationError

    from infra.edge.fleet_home import read_public_file
    from infra.edge.fleet_signing import change_inventory
    from infra.edge.trust.documents import Inventory, InventoryDevice
    from models.errors import ConfigError

    public = read_public_file(key)
    with _open(fleet) as at:

        def enter(inventory: Inventory) -> Inventory:
            if device in inventory.devices and not replace:
                raise ConfigError(f"{device} is in {fleet} already: --replace gives it another key")
            try:
                entry = InventoryDevice(hardware=hardware, key=public.pem)
            except ValidationError:
                raise ConfigError(
                    f"{hardware!r} is no name for hardware (lower-case letters, digits, '.', '_', '-')"
                ) from None
            return inventory.model_copy(update={"devices": {**inventory.devices, device: entry}})

        trust = at.home.trust(at.documents, now=at.now)
        made = change_inventory(at.documents, trust, at.home.keys().values(), enter)
    typer.echo(f"{device} is in {fleet}, now of {len(made.devices)} devices")


@app.command()
def state(
    fleet: _Fleet,
    digest: _Digest,
    hardware: Annotated[
        list[str] | None, typer.Option(help="Hardware it is for (repeat); default: any.")
    ] = None,
    days: Annotated[float, typer.Option(min=1, max=3650, help="How long the statement holds.")] = 365,
) -> None:
    """Say that a published release is one of this fleet's, with its release key. It still needs a sign-off to be deployed."""
    from infra.edge.fleet_signing import state_release

    with _open(fleet) as at:
        release = _release(at, digest)
        trust = at.home.trust(at.documents, now=at.now)
        made = state_release(
            at.documents, trust, release, at.home.keys().values(), hardware=tuple(hardware or ["any"]),
            now=at.now, days=days,
        )  # fmt: skip
    typer.echo(
        f"{made.name}@{made.number} is a release of {fleet} for {', '.join(made.hardware)}, {made.release}"
    )


def sign_off(
    fleet: _Fleet,
    digest: _Digest,
    key: Annotated[str, typer.Option(help="Name of your clinical key, e.g. clinical-1.")],
    by: Annotated[str, typer.Option(help="Your name and office, as they are to stand in the record.")],
    statement: Annotated[
        str, typer.Option(help="What you looked at and what you answer for, in a sentence or two.")
    ],
    days: Annotated[float, typer.Option(min=1, max=3650, help="How long it holds.")] = 365,
) -> None:
    """Answer, as a clinician, for the use of a release on a fleet's infants. No device runs a release without it.

    Read the release's model card and report first: `cryfed store pull DIGEST` fetches them.

    ```
    cryfed sign-off ward-a DIGEST --key clinical-1 --by "Dr A. Jones, neonatology" \\
        --statement "Read the report of 26 November; fit for use beside, not instead of, the ward's monitors."
    ```
    """
    from infra.edge import fleet_signing

    with _open(fleet) as at:
        release = _release(at, digest)
        trust = at.home.trust(at.documents, now=at.now)
        made = fleet_signing.sign_off(
            at.documents, trust, release.manifest_digest, [at.home.key(key)], by=by, statement=statement, now=at.now,
            days=days,
        )  # fmt: skip
    typer.echo(
        f"{made.by} signed off {release.name}@{release.version} for {fleet}, until {made.expires:%Y-%m-%d}: {made.release}"
    )


def _release(at: _At, digest: str) -> Release:
    """The release of a digest; a store that keeps another under that name is caught."""
    from infra.store import registry
    from models.errors import ConfigError, IntegrityError

    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigError(
            f"{digest!r} is no digest: give the 64 hex digits that the run and its report name; what a name stands for is up to "
            "the store, and a signature is not"
        )
    found = registry.resolve(at.documents.store, digest)
    if found.manifest_digest != digest:
        raise IntegrityError(
            f"the store gives {found.manifest_digest} for {digest}: sign nothing, and look at who wrote to it"
        )
    return found


def register(main: typer.Typer) -> None:
    """Add the group and the command."""
    main.add_typer(app, name="keys")
    main.command("sign-off")(sign_off)


@dataclass(frozen=True)
class _At:
    home: FleetHome
    documents: FleetDocuments
    now: datetime


@contextmanager
def _open(fleet: str) -> Iterator[_At]:
    from infra.edge.fleet_documents import FleetDocuments
    from infra.edge.fleet_home import FleetHome
    from infra.settings import load_settings
    from infra.store.embedded import open_store

    settings, folder = load_settings(), _folder(fleet)
    with open_store(settings.store, settings.work_dir) as store:
        yield _At(FleetHome(folder), FleetDocuments(store, fleet), datetime.now(UTC))


def _folder(fleet: str) -> Path:
    from infra.settings import load_settings
    from infra.store.content import check_name

    return load_settings().keys_dir / check_name("fleet", fleet)


def _require_new(at: _At) -> None:
    from models.errors import ConflictError

    if at.documents.root(1) is not None:
        raise ConflictError(
            f"there is a fleet {at.documents.fleet} in this store already: choose another name"
        )


def _settle(
    at: _At, root: RootDocument, *, before: TrustedRoot | None, envelope: Envelope | None = None
) -> None:
    """Sign a root with what is at hand; publish it if that is enough, else leave it as a draft and say who is next."""
    from infra.edge.fleet_signing import missing_signatures, sign_root

    old = None if before is None else before.root
    able = {k for r in (old, root) if r is not None for k in r.roles["root"].keys}
    keys = [key for key in at.home.keys().values() if key.keyid in able]
    signed = sign_root(envelope or root, keys)
    missing = missing_signatures(signed, old, root)
    if missing:
        path = at.home.save_draft(signed, root.version)
        typer.echo(f"root {root.version} is a draft yet: {path}")
        for version, (count, who) in missing.items():
            typer.echo(f"  {count} more of root {version}'s root keys: {', '.join(k[:16] for k in who)}")
        typer.echo(f"their holders run: cryfed keys countersign {at.documents.fleet} {path.name}")
        return
    at.documents.create_root(signed, before=before, now=at.now)
    at.home.remember(root.version, signed.to_bytes())
    at.home.draft(root.version).unlink(missing_ok=True)
    typer.echo(f"root {root.version} of {at.documents.fleet} is published")


def _describe(root: RootDocument, home: FleetHome) -> Iterator[str]:
    here = {k.keyid: k.name for k in home.keys().values()}
    yield f"{root.fleet}, root {root.version}, until {root.expires:%Y-%m-%d}"
    for role, held in root.roles.items():
        names = [f"{k[:16]}{f' ({here[k]}, here)' if k in here else ''}" for k in held.keys]
        yield f"  {role:<9} {held.threshold} of {', '.join(names)}"


def _role(text: str) -> Role:
    from infra.edge.trust.documents import ROLES
    from models.errors import ConfigError

    for role in ROLES:
        if text == role:
            return role
    raise ConfigError(f"{text!r} is no role: it is one of {', '.join(ROLES)}")


def _identify(at: _At, root: RootDocument, role: Role, text: str) -> str:
    """Id of a key that holds the role, from its name here or the beginning of its id."""
    from models.errors import ConfigError

    here = {k.name: k.keyid for k in at.home.keys().values()}
    wanted = here.get(text, text)
    found = [k for k in root.roles[role].keys if k.startswith(wanted)] if len(wanted) >= 8 else []
    if len(found) != 1:
        raise ConfigError(
            f"{text!r} names no one key of the role {role}: give its name here or eight digits of its id; `cryfed keys show` "
            "lists them"
        )
    return found[0]
