"""From imagery and places to a cube."""
