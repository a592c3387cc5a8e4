"""The native library (its sources: `native/`): linears, and a decode step's layers in one call."""
