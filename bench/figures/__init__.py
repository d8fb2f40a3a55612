"""The figures: a file for each thing that is measured."""
