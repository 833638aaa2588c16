"""Images of artifacts: overlays, contact sheets and the report."""
