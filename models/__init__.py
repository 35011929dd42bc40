"""The network and how it learns: torch, numpy and torchaudio only; no I/O."""
