"""Who sends a request: access tokens, sessions, and the key that signs the cookies of sessions."""
