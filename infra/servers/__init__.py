"""Servers that cryfed starts beside itself, on loopback: the process helper and the Prefect server."""
