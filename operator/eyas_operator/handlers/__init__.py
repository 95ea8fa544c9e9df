"""The kopf shell: watch streams that keep the cache fresh and wake the queue. It decides nothing and writes nothing.

`feed` says what an event means to us, `watches` holds the streams. kopf is imported in this room only.
"""
