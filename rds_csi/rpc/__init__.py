"""gRPC: the server, and what happens around every call.

A service is a subclass of a generated base (``rds_csi.csi.v1.ControllerBase``) whose methods take
the request and return the response, or raise one of :mod:`rds_csi.errors`. Requests that reach
them satisfy what the CSI spec demands of every request; no two that change the same volume run
at once; and they end, one way or another, before their callers stop waiting.
"""

from rds_csi.rpc.calls import Metrics, NoMetrics, RpcSettings
from rds_csi.rpc.operations import Operation, Operations
from rds_csi.rpc.server import Server

__all__ = ["Metrics", "NoMetrics", "Operation", "Operations", "RpcSettings", "Server"]
