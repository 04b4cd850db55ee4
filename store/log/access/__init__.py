"""How this process gets in: the login, what a broker refuses, and the permissions."""
