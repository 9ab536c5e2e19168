"""A Kubernetes CSI driver for MikroTik ROSE Data Server: files on the RDS, exported over NVMe/TCP."""
