"""Search among the seconds of a collection by what is seen and heard in them."""
