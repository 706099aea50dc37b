"""Copies of packets in pcapng files."""
