"""The judging wing: knows artifacts, sessions and images, never how they were pressed."""
