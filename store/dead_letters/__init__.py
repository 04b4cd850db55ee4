"""Reads dead letters, corrects them and checks what may be sent again.

`letters` reads the whole topic, `index` follows it, `corrections` and `resend` make the message
that replaces a letter. The command line (streams/dead_letters) and the API send it.
"""
