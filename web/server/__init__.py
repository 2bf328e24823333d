"""The HTTP server: gunicorn's threads, and before them a loop that waits for slow clients without a thread.

The loop reads heads, and whole bodies of forms and JSON. A thread gets a request when all of it is there, and writes
the answer without waiting; what the client has not taken is sent by the loop. Threads wait for a client in one case
only: they read the bodies of uploads, which have places, a least rate and a deadline.
"""
