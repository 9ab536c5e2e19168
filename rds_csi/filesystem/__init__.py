"""What stands on a volume's device and where it is mounted: formatting, mounts, growth, usage."""
