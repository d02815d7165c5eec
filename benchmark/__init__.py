"""Runs the scripts over environments and seeds, and reports who wins and how sure we are.

It knows the scripts only by their command line and their run directory: see README.md beside
this file.
"""
