"""Runs of an agent served alone: the same patterns and steps, without a database, money or sessions of their own."""
