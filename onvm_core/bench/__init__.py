"""What `onvm bench` measures."""
