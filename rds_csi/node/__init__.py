"""The Node service, and what its calls mean: stage, publish, grow, measure, and each way back.

Only ``service.py`` knows gRPC. The kernel is asked before each act and after it; the callers hold
the volume's lock.
"""
