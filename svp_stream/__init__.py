"""SVP Stream: live speech in, a talking head in a chosen speaking style out (pure core: no sockets, no event loop)."""

__version__ = "0.1.0"
