"""The program that classifies: claim, decode, predict, record."""
