"""Moving the state and the flows of instances to other hosts."""
