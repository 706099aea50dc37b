"""The control socket: messages, both ends, and the manager's directory."""
