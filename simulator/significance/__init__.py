"""Which policy is better and how sure that is: over requests drawn anew and errors of the cost model."""
