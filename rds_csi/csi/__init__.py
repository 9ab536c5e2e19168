"""The CSI messages and services on the wire. Use :mod:`rds_csi.csi.v1`."""
