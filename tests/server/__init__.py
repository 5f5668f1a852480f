"""Tests that mirror `server/`."""
