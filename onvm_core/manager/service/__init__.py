"""A manager that stays, and what each request does."""
