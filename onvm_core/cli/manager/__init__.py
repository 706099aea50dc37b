"""Commands that start a manager or talk to one."""
