"""A page to look at a trained run with, served on this machine or as one file."""
