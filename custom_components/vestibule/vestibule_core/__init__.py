"""The core of Vestibule: tokens, decisions, doors and the journal. Knows nothing of Home Assistant."""
