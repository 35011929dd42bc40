"""The systems below the flows, each behind a small interface."""
