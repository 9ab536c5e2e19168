"""The checks of an RDS.

* :mod:`.login`: from its address to a session; :mod:`.checks`: what is looked at over it
* :mod:`.scratch`: volumes of the doctor's own, made and removed again
* :mod:`.unknowns`: what nobody has measured of RouterOS; :mod:`.measures` and :mod:`.host_view`:
  how it is; :mod:`.initiator`: the NVMe/TCP host in user space that it takes
"""
