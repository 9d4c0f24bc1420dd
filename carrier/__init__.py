"""A carrier's cloud: it confirms a driver's ID, route, position and time, and only then signs a token."""
