"""Secure aggregation: the server learns the sum of the sites' vectors and nothing else of them (docs/secure-aggregation.md)."""
