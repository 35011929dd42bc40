"""The agent of one device: follows the fleet's signed desired state, installs releases, goes back by itself.

Standard library only, syntax of Python 3.6. Beside itself it needs `tensorrt` and `process` of the folder above, which travel
with it to a device (`agent_bundle`, `docs/device.md`). What it believes and in which order: `docs/edge-protocol.md`.
"""

VERSION = "1"
