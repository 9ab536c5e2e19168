"""The checks of an RDS."""
