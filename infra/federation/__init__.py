"""Flower apps, the round loop, its journal, and the simulation on Ray."""
