"""The path layer: a dm-multipath map between a volume's NVMe device and whoever uses it."""
