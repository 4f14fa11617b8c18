"""Encoders: linen modules, and `bind`, which makes pure functions of them."""
