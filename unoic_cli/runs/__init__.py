"""The driver and its engines: threads, clusters, ledgers, the loops that read and write."""
