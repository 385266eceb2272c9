"""Which deployment serves a demand best: many are tried a little, the best of them more, the last ones in full."""
