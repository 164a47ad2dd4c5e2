"""Metrics and comparisons of predictions; figures, tables and pages of results. Works on plain values and arrays."""
