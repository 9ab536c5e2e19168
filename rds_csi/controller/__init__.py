"""The Controller service: volumes on the RDS, and who has them."""
