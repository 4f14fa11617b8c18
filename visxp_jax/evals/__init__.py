"""How good a set of features is: probes, neighbours, clusters."""
