"""The agent of one device: follows the fleet's signed desired state, installs releases, goes back by itself.

Standard library only, syntax of Python 3.6, imports within the folder alone: a device gets this folder, a configuration
and a unit (`docs/device.md`). What it believes and in which order: `docs/edge-protocol.md`.
"""

VERSION = "1"
