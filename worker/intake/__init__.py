"""The program that unpacks archives into their batches."""
