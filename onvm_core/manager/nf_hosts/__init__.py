"""NF hosts: how they attach, their registry, and their load."""
