"""Chains by name, and the classifiers that send new flows to them."""
