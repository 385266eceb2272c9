"""Published runs of real engines, simulated again from the same requests and settings."""
