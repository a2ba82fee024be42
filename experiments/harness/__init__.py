"""What claim scripts share: verdicts and files, paired tests, parts of figures, and the tables in README.md."""
