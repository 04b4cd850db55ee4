"""What `streams inspect` shows: `views` reads it, `output` prints it."""
