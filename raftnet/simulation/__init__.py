"""Stand-ins for disk, network, time and chance, and what checks a simulated cluster."""
