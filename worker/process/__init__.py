"""The life of a worker process: its runtime, heartbeat, lease renewal, watchdog and shutdown."""
