"""HTTP below the views: bodies, headers and addresses."""
