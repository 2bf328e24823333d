"""``make hostile``: input that nobody would send by mistake, against real processes. Slow, so not in CI."""
