"""What `core.codec` looks at when a message is no valid event as it stands.

`times`: is the time plausible, and that of its record. `envelopes`: is the event wrapped in
something else. `tolerance`: would a setting accept it. A valid event needs none of them.
"""
