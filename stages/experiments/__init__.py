"""Reading runs and experiments from DVC."""
