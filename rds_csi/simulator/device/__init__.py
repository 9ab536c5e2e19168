"""What a device has and does: pools, files, disks, exports, habits and faults."""
