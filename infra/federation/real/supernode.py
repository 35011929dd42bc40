"""A site's process: it connects to the SuperLink and answers, with what is installed here, until it is stopped.

    python -m infra.federation.real.supernode SITE.toml

No code that the server sends is run, no port is opened, and no process is started per message. It ends with 0 when it is told to
(SIGTERM, Ctrl-C), with 1 and one line where it cannot take part.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from infra import quiet

quiet.apply()

from flwr.app import Context, Message, RecordDict  # noqa: E402  (telemetry is off before Flower is imported)

from infra.federation.client_app import build_app  # noqa: E402
from infra.federation.local.routes import open_local_site  # noqa: E402
from infra.federation.real.certificates import load_certificate, load_site_key  # noqa: E402
from infra.federation.real.config import SiteConfig, load_site_config  # noqa: E402
from infra.federation.real.fleet import Fleet  # noqa: E402
from models.errors import CryfedError  # noqa: E402

_POLL_S: Final = (0.2, 3.0)
_POLL_SHARE: Final = (
    0.05  # of the time since the last message: a message waits a twentieth longer than it took to come
)
_ENVELOPE_BYTES: Final = 2**20  # header, body and Flower's framing around a payload

_log = logging.getLogger(__name__)


def serve(config: SiteConfig) -> NoReturn:
    """Answer for one site until the process is stopped.

    Raises:
        ConfigError: a file that the configuration names cannot be used, or the server and the site do not know each other.
        OutputError: the site's folder cannot be written.
        ServerError: the server refuses.
    """
    load_certificate(config.ca)
    key = load_site_key(config.key)
    site = open_local_site(str(config.write_own_job()), config.site)
    client = build_app(lambda _context: site)
    max_bytes = site.max_payload + _ENVELOPE_BYTES
    with Fleet(config.superlink, config.ca.read_bytes(), key, max_bytes=max_bytes) as fleet:
        _log.info("site %s is connected to %s", config.site, config.superlink)

        def answer(message: Message) -> Message:
            meta = message.metadata
            _log.info("round %s: %s", meta.group_id, meta.message_type)
            context = Context(
                run_id=meta.run_id, node_id=fleet.node_id, node_config={}, state=RecordDict(), run_config={}
            )
            return client(message, context)

        last = time.monotonic()
        while True:
            if fleet.answer_one(answer):
                last = time.monotonic()
            else:
                time.sleep(pause(time.monotonic() - last))


def pause(idle: float) -> float:
    """Seconds to wait before the next poll, `idle` seconds after the last message."""
    shortest, longest = _POLL_S
    return min(max(idle * _POLL_SHARE, shortest), longest)


def run(path: Path) -> int:
    """`serve` as a process: logs to stderr, ends on SIGTERM and Ctrl-C; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _leave)
    try:
        serve(load_site_config(path))
    except CryfedError as err:
        _log.error("%s", err)
        return 1
    except KeyboardInterrupt:
        return 0


def _leave(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Command line of a site's process."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m infra.federation.real.supernode SITE.toml\n")
        return 2
    return run(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
