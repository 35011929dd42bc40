"""Prefect tasks: one verb per file, thin over plain functions."""
