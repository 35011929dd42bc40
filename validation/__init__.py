"""The data-quality gate: measurements, expectations, verdicts."""
