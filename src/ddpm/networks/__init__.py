"""Networks that can be denoisers, and how several processes hold one."""
