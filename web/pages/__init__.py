"""The pages: what a lab sees in a browser."""
