"""Requests and answers below the views: bodies, headers, addresses."""
