"""The node's side of NVMe/TCP: identity, connections, what sysfs shows, and the reaper."""
