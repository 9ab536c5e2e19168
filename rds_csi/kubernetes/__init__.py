"""What the driver asks of Kubernetes itself, and no more."""
