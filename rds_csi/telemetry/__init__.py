"""What the driver tells about itself: log lines and metrics."""
