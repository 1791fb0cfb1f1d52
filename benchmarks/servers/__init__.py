"""The servers that the benchmarks compare (``http_peers.py``), and how one is started and measured (``running.py``)."""
