"""The queue in SQL: claims of images and archives, in the fair order of labs. Messages are in ``dermq.wakeups``."""
