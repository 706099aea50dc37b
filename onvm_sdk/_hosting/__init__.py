"""Parts of an NF host beside its loop: loading NFs, their states and their configurations."""
