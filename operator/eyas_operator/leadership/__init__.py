"""Who of several operators works: one Lease, one leader. `election` decides, `campaign` asks, `guard` bars others."""
