"""The server under load: what ``bench/serve.py`` is made of."""
