"""Errors, argument checks, atomic file writes, locks, names in messages, and hardware."""
