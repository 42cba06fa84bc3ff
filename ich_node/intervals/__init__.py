"""How sure a figure is: shares and areas under curves with their intervals.

``proportion.py`` needs no library, since the web pages use it; ``exact.py`` is a home of scipy.
"""
