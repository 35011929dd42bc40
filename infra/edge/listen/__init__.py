"""Listening on the device: samples in, events out, for hours.

    source → intake (mono, 16 kHz) → framer (VAD, one-second frames) → graph → bouts (smoothing, hysteresis) → events

`detector.Detector` is all of it between samples and events and does no I/O; `sources`, `run`, `console` and `server` are the rim.
Nothing here imports torch.
"""
