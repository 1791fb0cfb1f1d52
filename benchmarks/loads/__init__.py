"""The load of the benchmarks: ``wrk.py`` drives wrk, ``ws_load.py`` makes and drives ``ws_load.c``; ``transfers.py``
moves large files; ``idle.py`` is a program that holds connections open."""
