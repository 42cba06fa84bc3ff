"""The documents, and the program that writes their tables from the code."""
