"""Manifests, corpora, audio files and the cry synthesiser."""
