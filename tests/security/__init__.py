"""Security: every promise is a test that can fail."""
