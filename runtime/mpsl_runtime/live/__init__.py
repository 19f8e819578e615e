"""A source in, chunks of events as they arrive out.

What comes in: a path, a folder, a datagram address or events in memory. What goes out:
`Recording`s whose chunks can be cut into steps, with what was lost counted. This room knows no
network beyond its sensor.
"""
