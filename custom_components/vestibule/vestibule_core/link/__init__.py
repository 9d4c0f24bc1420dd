"""The outbound link of a controller to a carrier's cloud (protocol G): what is said on it, and how it is enrolled."""
