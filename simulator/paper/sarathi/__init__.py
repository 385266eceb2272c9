"""SARATHI on one GPU (arXiv 2308.16369, sections 3 to 5.2 and 5.4), and what would come of it today."""
