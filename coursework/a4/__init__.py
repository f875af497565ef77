"""A4, Networks: shapes, parameters, a block, and a gradient."""
