"""``vestibule-carrier conformance``: what a building would do with another carrier's token, keys and cloud, and why.

The verdict is always that of the functions that buildings run (``vestibule_core``). What this refuses to do: judge by a
second implementation of the protocol, or guess where only the building knows.
"""
