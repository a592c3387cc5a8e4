"""The native library (its sources: `native/`): linears, and all layers of a step in one call."""
