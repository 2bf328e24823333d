"""The programs: ``classify`` predicts images, ``intake`` unpacks archives, ``reaper`` repairs after failures."""
