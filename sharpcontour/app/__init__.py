"""What people use without writing code: the command ``sharpcontour``."""
