"""Keeping NF hosts running: start, restart, drain, scale, fuse, bypass."""
