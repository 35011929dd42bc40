"""The cry synthesiser: a corpus with known truth, made of numbers alone. Frozen per `SYNTH_VERSION`."""
