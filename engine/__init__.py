"""The real thing: transformers models over a paged KV cache, driven by the policies; replay, benchmarks, validation."""
