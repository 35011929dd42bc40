"""Flower's ClientApp of a site: thin over `LocalSite`.

`app` is what a SuperNode runs; its node configuration names the job, and may say what the site brings and where it works:

    flower-supernode … --node-config 'site="ward1" job="/srv/cryfed/federation.json"
                                      manifest="/data/manifest.csv" folder="/srv/cryfed/ward1"'

(`override="why"` lets the site train although its gate fails; nobody else can.) The simulation builds the same app over a job
file, with partition i speaking for the job's i-th site.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from infra import quiet
from infra.federation.local.routes import open_local_site
from infra.federation.site import Site
from infra.federation.wire import from_records, to_records
from models.errors import ConfigError, FederationError

Resolve = Callable[[Context], Site]

_log = logging.getLogger(__name__)


def build_app(resolve: Resolve) -> ClientApp:
    """A ClientApp whose routes all end in one site's `handle`."""
    quiet.apply()
    client = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        try:
            site = resolve(context)
            request = from_records(message.content, max_payload=site.max_payload)
            return Message(to_records(site.handle(request)), reply_to=message)
        except FederationError:
            raise
        except Exception as err:
            # Flower sends an exception's words to the server; these may name the site's files
            _log.exception("the site could not answer")
            raise FederationError(
                f"the site could not answer ({type(err).__name__}); the reason stays in its own log"
            ) from None

    for action in ("hello", "keys", "share", "confirm", "unmask", "gate", "features", "calibrate"):
        client.query(action)(answer)
    client.train("step")(answer)
    return client


def simulated_app(job_path: str) -> ClientApp:
    """The app of all sites of a job, told apart by their partition."""
    return build_app(lambda context: open_local_site(job_path, int(context.node_config["partition-id"])))


def _from_node_config(context: Context) -> Site:
    given = {name: str(value) for name, value in context.node_config.items()}
    if missing := {"job", "site"} - set(given):
        raise ConfigError(
            f"the node configuration lacks {', '.join(sorted(missing))}: start the SuperNode with site=… and job=…"
        )
    own = {name: given.get(name) for name in ("manifest", "folder", "override")}
    return open_local_site(given["job"], given["site"], **own)


app = build_app(_from_node_config)
