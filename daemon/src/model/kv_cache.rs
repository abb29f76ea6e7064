//! Positions, pages, marks and forks of the KV cache.
