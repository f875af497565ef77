"""Assignments to the book, and what makes, proves and grades them. Start with README.md here."""
