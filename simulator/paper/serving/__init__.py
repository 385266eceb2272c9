"""The experiments of Sarathi-Serve (arXiv 2403.02310, OSDI 2024): online serving within latency targets."""
