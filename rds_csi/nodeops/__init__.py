"""What the node does with a volume: stage, publish, grow, measure, and each way back.

Below the CSI service: nothing here knows gRPC. The kernel is asked before each act and after it;
the callers hold the volume's lock.
"""
