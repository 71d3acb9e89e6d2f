"""The tables of the paper, and the records that fill them."""
