"""The texts of a collection nearest in meaning to a query."""
