"""The published first-order fit, and the naive objective that it and the tests use."""
