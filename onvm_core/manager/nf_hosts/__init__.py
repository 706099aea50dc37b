"""NF hosts: how they attach, which there are, and how loaded they are."""
