"""Backbones, and the final semantic network on one."""
