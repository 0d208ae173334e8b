"""Architectures: networks with a head, ready to train."""
