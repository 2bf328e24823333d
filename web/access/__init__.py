"""Who is asking: tokens, sessions and what they stand on."""
