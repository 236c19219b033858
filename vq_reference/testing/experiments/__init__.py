"""What `vq-check reproduce` and `vq-check drift` compute: measurements that are no law."""
