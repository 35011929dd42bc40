"""Experiments on how fast the federation learns: cells, their results, and the page that shows them."""
