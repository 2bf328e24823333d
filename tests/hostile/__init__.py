"""``make hostile``: input that nobody would send by mistake, against real processes. It is slow and not in CI."""
