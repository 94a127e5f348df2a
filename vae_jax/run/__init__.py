"""The engine of a run: data, training that survives, measurements, pictures, commands."""
