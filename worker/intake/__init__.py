"""The ``intake`` program: unpack archives into their batches."""
