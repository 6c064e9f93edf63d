"""What measurements of many random networks share: their plan, statistics, theory, and agreement with it."""
