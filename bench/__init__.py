"""What is measured of Sandpost, and how: `python -m bench --help`, and README.md beside this file."""
