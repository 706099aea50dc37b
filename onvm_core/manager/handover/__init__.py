"""Moving the state of an NF host to another one, here or on another machine."""
