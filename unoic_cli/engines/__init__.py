"""Engines: ways to run the same work on many spans. An engine is only a map; nothing else knows which one runs."""
