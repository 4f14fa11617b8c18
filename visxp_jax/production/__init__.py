"""The bridge from and to VisXP's production system, which is in PyTorch."""
