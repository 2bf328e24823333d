"""dermq on one machine with nothing but Python: every program under one process manager."""
