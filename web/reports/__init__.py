"""Reports: downloads made from a batch."""
