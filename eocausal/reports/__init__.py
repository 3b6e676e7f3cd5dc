"""Tables, figures, maps and the report."""
