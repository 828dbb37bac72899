"""Models that make vectors of texts: found by name, each with an extra of its own."""
