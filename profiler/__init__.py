"""Devices, models, profiles of measured op times, and the cost model fitted to them."""
