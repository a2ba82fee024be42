"""What claim scripts share: verdicts and files, answers with planned power, parts of figures, tables in README.md."""
