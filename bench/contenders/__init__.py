"""What is measured: each a process that is asked for one measurement after another (see protocol)."""
