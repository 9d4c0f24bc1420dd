"""The edge of a building without Home Assistant: for now, what an auditor does with a journal."""
