"""The workers: claim, decode, predict, record; unpack archives; and the reaper that mends what others left."""
