"""The captured network as data (`Graph`), compiled into steps (`Plan`), and frozen at a code (`Frozen`)."""
