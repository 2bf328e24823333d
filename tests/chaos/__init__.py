"""``make chaos``: injects faults into a whole running system; each fault prints a row with its cost."""
