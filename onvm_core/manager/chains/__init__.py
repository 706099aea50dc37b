"""Chains by name, and the classifiers that lead new flows to them."""
