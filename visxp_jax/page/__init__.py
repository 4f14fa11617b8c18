"""The page to search an index by hand: served on this machine, or one file."""
