"""Reporting: tables, plots and pages from run folders; never imports jax."""
