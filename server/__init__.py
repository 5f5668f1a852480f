"""The asyncio shell: sockets, tracks, signalling. It holds no mathematics."""
