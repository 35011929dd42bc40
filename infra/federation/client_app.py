"""Flower's ClientApp of a site: thin over `Site`.

`app` is what a SuperNode runs; its node configuration points at the site's own description:

    flower-supernode … --node-config 'site="ward1" job="/srv/cryfed/federation.json"'

The simulation builds the same app over a job file, with partition i speaking for the job's i-th site.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from infra import quiet
from infra.federation.site import Site, open_site
from infra.federation.wire import from_records, to_records
from models.errors import ConfigError

Resolve = Callable[[Context], Site]


def build_app(resolve: Resolve) -> ClientApp:
    """A ClientApp whose routes all end in one site's `handle`."""
    quiet.apply()
    client = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        site = resolve(context)
        request = from_records(message.content, max_payload=site.max_payload)
        return Message(to_records(site.handle(request)), reply_to=message)

    client.query("hello")(answer)
    client.train("step")(answer)
    client.query("evaluate")(answer)
    return client


def simulated_app(job_path: str) -> ClientApp:
    """The app of all sites of a job, told apart by their partition."""
    return build_app(lambda context: open_site(job_path, int(context.node_config["partition-id"])))


def _from_node_config(context: Context) -> Site:
    try:
        return open_site(str(context.node_config["job"]), str(context.node_config["site"]))
    except KeyError as err:
        raise ConfigError(
            f"the node configuration lacks {err}: start the SuperNode with site=… and job=…"
        ) from None


app = build_app(_from_node_config)
