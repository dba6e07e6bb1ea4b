"""Whatever somebody sends: the server neither crashes, hangs nor grows, and goes on for others.

`messages` is what may come by WebSocket, `requests` what may come by HTTP, `target` the server that it comes to. The
tests look at a fixed part of it for a minute, `make fuzz` at ever new parts for ten; see __main__.py.
"""
