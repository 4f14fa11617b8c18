"""Hyperbolic space as pure functions: `poincare`, the ball, and `lorentz`."""
