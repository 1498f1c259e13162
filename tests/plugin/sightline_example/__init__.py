"""The examples of docs/extending.md, as a package that somebody could have written."""
