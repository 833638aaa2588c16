"""Pictures of artefacts: overlays, contact sheets and the report."""
