"""Network interfaces of the kernel: their facts, what bites a port on them, and their settings."""
