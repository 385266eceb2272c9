"""Capacity: the highest rate that a deployment sustains within a service level objective, and how sure that is."""
