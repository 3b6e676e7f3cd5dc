"""Checks that could sink an estimate."""
