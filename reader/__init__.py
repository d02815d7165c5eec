"""The side-by-side page: any two scripts read as one argument."""
