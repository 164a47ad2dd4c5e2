"""Errors, argument checks, atomic file writes and hardware."""
