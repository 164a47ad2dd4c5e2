"""Optimizers, learning-rate schedules and gradient accumulation."""
