"""What people see: tables and bars in a terminal, figures, and what a terminal can show."""
