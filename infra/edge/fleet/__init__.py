"""A release onto a fleet of devices, ring by ring, and back again where it fails."""
