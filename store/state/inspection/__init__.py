"""What people look at: `memory` measures what the state takes, `overview` reads how far it is.

Both only read.
"""
