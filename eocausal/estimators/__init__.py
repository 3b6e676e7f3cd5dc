"""From a design and outcomes to effects."""
