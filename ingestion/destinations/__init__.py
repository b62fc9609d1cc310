"""Where dlt loads to, and the process-wide settings it does so under."""
