"""The real thing: kernels on real devices."""
