"""The model: its bundle on disk, its networks, and the engines that run them.

Of its sibling stages it imports ``windowing`` alone: the manifest holds its settings, and the untrained bundle is
set up on windowed slices.
"""
