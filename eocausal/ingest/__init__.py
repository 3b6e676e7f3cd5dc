"""Imagery and places in, cubes out."""
