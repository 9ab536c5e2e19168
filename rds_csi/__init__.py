"""A Kubernetes CSI driver for MikroTik ROSE Data Server: files exported over NVMe/TCP."""

__version__ = "0.1.0"
