"""Pure ground under every room: types, codec, settings, use cases, errors.

No I/O, no imports of other rooms.
"""
