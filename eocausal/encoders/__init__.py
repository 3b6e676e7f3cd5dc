"""From a cube to an embedding."""
