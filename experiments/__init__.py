"""Scripts that measure; nobody imports them."""
