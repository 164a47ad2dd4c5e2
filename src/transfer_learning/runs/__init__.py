"""What a run leaves: its folder, its provenance, and the leaderboard of a sweep."""
