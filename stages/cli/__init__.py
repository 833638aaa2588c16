"""The weakmask command."""
