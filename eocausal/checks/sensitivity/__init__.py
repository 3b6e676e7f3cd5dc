"""How strong something unmeasured would have to be to change an effect."""
