"""Lightning callbacks: EMA of the weights, and what a run shows while it trains and at its end."""
