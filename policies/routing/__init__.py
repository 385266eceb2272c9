"""Which replica of a cluster gets a request: the same objects in the simulator and in front of real engines."""
