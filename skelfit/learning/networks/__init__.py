"""Networks, one file a kind."""
