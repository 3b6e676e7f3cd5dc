"""Studies as YAML: schema, plan, run."""
