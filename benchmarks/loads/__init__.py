"""The load of the benchmarks: ``wrk.py`` drives wrk, ``idle.py`` is a program that holds connections open."""
