"""The Node service: volumes on this machine."""
