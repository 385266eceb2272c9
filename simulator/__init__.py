"""Replicas in simulated time: the policies of ``policies`` on the cost model of ``profiler``.

Simulating needs neither torch nor transformers nor scikit-learn.
"""
