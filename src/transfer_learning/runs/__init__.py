"""What runs leave: their folders and provenance, the leaderboard of a sweep, and the report that compares runs."""
