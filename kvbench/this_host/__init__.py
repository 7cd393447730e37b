"""What kvbench reads of this host, and the processes that it starts on it."""
