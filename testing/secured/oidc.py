"""Runs an OpenID Connect token endpoint on loopback: client credentials in, a signed token out.

The tokens are real: RS256, checked by the broker against the endpoint's published key.
"""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
import urllib.parse
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from testing.ports import HOST


class TokenServer:
    """Gives tokens of TOKEN_S seconds to one client; `with TokenServer() as tokens:`."""

    AUDIENCE = "eddyline"
    CLIENT_ID = "eddyline"
    CLIENT_SECRET = "s#cret/of:the client"  # noqa: S105 - of a test's server
    TOKEN_S = 300

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.issued = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self, 200, {"keys": [server._public_key()]})

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", "0"))
                form = urllib.parse.parse_qs(self.rfile.read(size).decode())
                authorized = server._is_client(self.headers.get("Authorization", ""))
                if not authorized or form.get("grant_type") != ["client_credentials"]:
                    server._answer(self, 401, {"error": "invalid_client"})
                    return
                server.issued += 1
                server._answer(
                    self,
                    200,
                    {
                        "access_token": server._token(),
                        "token_type": "Bearer",
                        "expires_in": server.TOKEN_S,
                    },
                )

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        self._http = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def token_url(self) -> str:
        """Where a client asks for a token."""
        return f"http://{HOST}:{self._http.server_port}/token"

    @property
    def keys_url(self) -> str:
        """Where the broker reads the keys that sign the tokens."""
        return f"http://{HOST}:{self._http.server_port}/keys"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @staticmethod
    def _answer(request: http.server.BaseHTTPRequestHandler, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _is_client(self, header: str) -> bool:
        if not header.startswith("Basic "):
            return False
        name, _, secret = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        # RFC 6749 2.3.1: both are form-encoded before they are joined; some clients do not
        return (name, secret) in (
            (self.CLIENT_ID, self.CLIENT_SECRET),
            (urllib.parse.quote_plus(self.CLIENT_ID), urllib.parse.quote_plus(self.CLIENT_SECRET)),
            (urllib.parse.quote(self.CLIENT_ID), urllib.parse.quote(self.CLIENT_SECRET, safe="")),
        )

    def _token(self) -> str:
        now = int(time.time())
        header = {"alg": "RS256", "typ": "JWT", "kid": "test"}
        claims = {
            "sub": self.CLIENT_ID,
            "aud": self.AUDIENCE,
            "iat": now,
            "exp": now + self.TOKEN_S,
            "scope": "kafka",
        }
        signed = ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encode(signature)}"

    def _public_key(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "kid": "test",
            "use": "sig",
            "alg": "RS256",
            "n": _encode(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
            "e": _encode(numbers.e.to_bytes(3, "big")),
        }


def _encode(data: bytes) -> str:
    """base64url without padding, as JSON Web Tokens use it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
