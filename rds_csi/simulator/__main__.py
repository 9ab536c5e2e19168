"""``python -m rds_csi.simulator``."""

from rds_csi.simulator.command import simulate

if __name__ == "__main__":
    simulate()
