"""The federation across machines: a Flower SuperLink, one process per site, TLS and node authentication.

certificates   authority, server certificate, a key per site
config         what one site's operator writes, and its check
fleet          a site's end of the SuperLink's Fleet API
supernode      the site's process: answers messages with the installed ClientApp, never with code that it is sent
superlink      the SuperLink as a server process
members        which sites may take part
control        the SuperLink's Control API: register sites, submit runs, follow them
server_app     the ServerApp that a run names: `infra.federation.server_app` with progress lines
run            one job, from submission to result
demo           all of it on one machine, with a site that is killed
"""
